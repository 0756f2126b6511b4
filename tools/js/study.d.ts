// What a questionnaire's page reads: the questions, as encoscope.user_study writes them into questions.js.

type StudyKind = "words" | "examples" | "describe" | "match";

interface StudyQuestion {
  name: string;
  pictures: string[];
  word?: string;
  examples?: string[];
  choices?: string[];
}

interface Study {
  study: string;
  title: string;
  parts: { kind: StudyKind; questions: StudyQuestion[] }[];
}

interface Window {
  STUDY: Study;
}
