"""Does the audit tell networks that learned a mark from those that did not?"""
