// What the atlas's pages read and share. The records are those of encoscope.atlas.records, as shards hold them: fields
// with their default value are left out.

interface Measure {
  value: number;
  unit: string;
  control?: number;
  control_name?: string;
  interval?: [number, number];
}

interface ImageFile {
  name: string;
  width: number;
  height: number;
}

interface Term {
  text: string;
  score: number;
}

interface DescriptionRecord {
  concepts: Term[];
  method: string;
  score: string;
  phrases?: Term[];
  spurious?: Term[];
  control?: number;
  control_name?: string;
  note?: string;
  verdict?: string;
}

interface VisualizationRecord {
  method: string;
  picture: ImageFile;
  transparent?: ImageFile;
  activation?: Measure;
  facet?: string;
  notes?: string[];
}

interface CropRecord {
  image: string;
  picture: ImageFile;
  value: Measure;
  box?: [number, number, number, number];
  outline?: [number, number][][];
  captions?: string[];
}

interface Histogram {
  edges: number[];
  counts: number[];
  mean: number;
  std: number;
  unit: string;
}

interface CircuitLink {
  target: string;
  measure: Measure;
  examples?: ImageFile[];
}

interface FeatureRecord {
  unit: string;
  layer?: string;
  description?: DescriptionRecord;
  heldout_auc?: Measure;
  clarity?: Measure;
  sparsity?: Measure;
  visualizations?: VisualizationRecord[];
  activating?: CropRecord[];
  counterfactuals?: CropRecord[];
  histogram?: Histogram;
  nearest?: CircuitLink[];
  classes?: CircuitLink[];
}

interface LabelMap {
  rows: number;
  columns: number;
  runs: number[];
}

/** Two nodes that become one. */
type Merge = [number, number];

interface NodeTop {
  node: number;
  features: CircuitLink[];
}

interface ImageSegmentation {
  segmentation: string;
  labels: LabelMap;
  merges?: Merge[];
  tops?: NodeTop[];
}

interface ImageRecord {
  id: string;
  name?: string;
  picture?: ImageFile;
  thumbnail?: ImageFile;
  label?: string;
  predictions?: CircuitLink[];
  segmentations?: ImageSegmentation[];
  tops?: CircuitLink[];
}

interface CircuitLayer {
  layer: string;
  channels: CircuitLink[];
}

interface Failure {
  image: string;
  picture: ImageFile;
  predicted: string;
  confidence: Measure;
  drivers?: CircuitLink[];
}

interface ClassRecord {
  name: string;
  index: number;
  visualizations?: VisualizationRecord[];
  images?: CropRecord[];
  accuracy?: Measure;
  circuit?: CircuitLayer[];
  circuit_method?: string;
  failures?: Failure[];
}

interface MatchedFeature {
  unit: string;
  concepts?: string[];
  picture?: ImageFile;
  crops?: ImageFile[];
}

interface MatchedPair {
  unit: string;
  other: MatchedFeature;
  similarity: Measure;
  mutual?: boolean;
}

interface ComparisonRecord {
  name: string;
  model: string;
  digest: string;
  images: number;
  pairs: MatchedPair[];
  method?: string;
}

interface SegmentationInfo {
  id: string;
  layers: string[];
  scope: string;
  leaves: number;
  merges?: Merge[];
  sizes?: number[];
  settings?: Record<string, string>;
}

// The overview tables: rows as encoscope.atlas.rows lists them, and each row's position in its table

interface FeatureRow {
  position: number;
  unit: string;
  layer: string | null;
  method: string | null;
  verdict: string | null;
  concepts: string[];
  phrases: string[];
  heldout_auc: number | null;
  heldout_auc_control: number | null;
  clarity: number | null;
  clarity_control: number | null;
  sparsity: number | null;
  sparsity_control: number | null;
  picture: string | null;
  crops: string[];
}

interface ImageRow {
  position: number;
  id: string;
  name: string;
  label: string | null;
  thumbnail: [string, number, number] | null;
  predicted: string | null;
  /** Of every joint segmentation, each cluster's share of the image in thousandths. */
  shares: Record<string, number[]>;
}

interface ClassRow {
  position: number;
  index: number;
  name: string;
  picture: string | null;
  accuracy: number | null;
  accuracy_control: number | null;
  failures: number;
  images: string[];
}

interface ComparisonRow {
  position: number;
  name: string;
  model: string;
  images: number;
  pairs: number;
}

interface Rows {
  features: FeatureRow;
  images: ImageRow;
  classes: ClassRow;
  comparisons: ComparisonRow;
}

interface Records {
  features: FeatureRecord;
  images: ImageRecord;
  classes: ClassRecord;
  comparisons: ComparisonRecord;
}

type Kind = keyof Rows;

interface Table<Row> {
  rows: Row[];
  /** Rows by their key: unit, id or name. */
  by: Map<string, Row>;
}

interface Manifest {
  format: string;
  title: string;
  model: { source?: string; digest?: string; [name: string]: unknown } | null;
  data: Record<string, unknown>;
  settings: Record<string, unknown>;
  seed: number | null;
  versions: Record<string, string>;
  skipped: { path: string; reason: string }[];
  counts: Record<Kind, number>;
  tables: Record<Kind, number>;
  shard: Record<Kind, number>;
  layers: string[];
  segmentations: SegmentationInfo[];
  stages: Record<string, { done: number; total: number }>;
  methods: Record<string, Record<string, unknown>>;
  controls: string[];
  palette: string[];
}

/** What a server can do; null on pages that were opened from a folder. */
interface Live {
  available: boolean;
  reason: string;
  types: string[];
  max_bytes: number;
  max_pixels: number;
  joint: boolean;
}

/** The answer to an uploaded image. */
interface LiveAnswer {
  width: number;
  height: number;
  segmentations: ImageSegmentation[];
  tops?: CircuitLink[];
  predictions?: CircuitLink[];
  error?: string;
}

// Elements

type Child = Node | string | number | null | undefined | false | Child[];
type PropertyValue = string | number | boolean | null | undefined | Record<string, string> | ((event: any) => unknown);
type Properties = Record<string, PropertyValue>;

// What scripts put into the global Atlas

type Query = Record<string, string>;

/** What a key goes to. */
type Keys = Record<string, () => HTMLElement | null>;

interface Page {
  title: string;
  /** Draws the page; the function that it may give is called before another page is drawn. */
  render(main: HTMLElement, part: string | null, query: Query): Promise<(() => void) | null>;
  keys?: Keys;
}

interface Grid<Item> {
  show(items: Item[]): void;
  focus(index: number): void;
  close(): void;
}

interface GridOptions<Item> {
  card: (item: Item, index: number) => HTMLElement;
  /** The least width of a card, in pixels. */
  least: number;
  /** A card's height in pixels beyond its width times the ratio. */
  extra: number;
  ratio?: number;
  gap?: number;
}

/** What stands for a feature or a class in a list. */
interface Face {
  unit?: string;
  picture?: string | null;
  crops?: string[];
}

interface ChipOptions {
  /** The largest size of a number in the list. */
  strongest?: number;
  /** Names of pictures, where the atlas holds no record of the target. */
  examples?: string[] | null;
}

interface Neighbour {
  text: string;
  href: string;
  title?: string;
}

interface ExplorerSource {
  src: string;
  alt: string;
  width: number;
  height: number;
}

interface ExplorerContext {
  /** Of the address: s, the segmentation, and k, the number of regions. */
  state: Query;
  changed: (state: Query) => void;
  features: Table<FeatureRow>;
  /** The images among which the same cluster is looked for; null where there are none. */
  images: Table<ImageRow> | null;
}

/** A segmentation of one image, cut into some number of regions. */
interface Cut {
  segmentation: ImageSegmentation;
  /** The leaf of every cell, row by row. */
  cells: Uint8Array;
  merges: Merge[];
  /** Cells of each leaf. */
  areas: number[];
  /** The node of every leaf. */
  nodes: number[];
  /** The leaf that gives each node its color. */
  colors: Map<number, number>;
}

interface AtlasSegmentation {
  decodeLabels(map: LabelMap): Uint8Array;
  cutTree(merges: Merge[], regions: number): number[];
  countLeaves(merges: Merge[]): number;
  countCells(cells: Uint8Array, leaves: number): number[];
  chooseColors(nodes: number[], sizes: number[]): Map<number, number>;
  draw(
    canvas: HTMLCanvasElement,
    cut: Pick<Cut, "segmentation" | "cells" | "nodes" | "colors">,
    options?: { strength?: number; only?: number | null },
  ): void;
  mergesOf(segmentation: ImageSegmentation): Merge[];
  infoOf(segmentation: ImageSegmentation): Pick<SegmentationInfo, "scope" | "layers" | "sizes">;
  nameOf(segmentation: ImageSegmentation): string;
}

/** What the server says of a place: cosines on a grid, row by row. */
interface SimilarAnswer {
  rows: number;
  columns: number;
  values: number[];
  /** The median cosine of random places. */
  typical: number;
  layers: string[];
  error?: string;
}

interface AtlasPages {
  pages: Record<string, Page>;
  manifest: Manifest;
  live: Live | null;
  table<K extends Kind>(kind: K): Promise<Table<Rows[K]>>;
  record<K extends Kind>(kind: K, position: number): Promise<Records[K]>;
  link(page: string, part?: string | null, query?: Record<string, string | number>): string;
  linkTo(target: string): string;
  replace(page: string, part: string | null, query: Query): void;
  measure(measure: Measure, options?: { label?: string; low?: number; high?: number }): HTMLElement;
  scale(measure: Measure, low: number, high: number): SVGElement;
  isProven(verdict: string | null | undefined): boolean;
  terms(terms: Term[], description: DescriptionRecord, options?: { struck?: boolean }): HTMLElement;
  histogram(histogram: Histogram, positions: number[]): HTMLElement;
  image(file: ImageFile, alt: string, properties?: Properties): HTMLImageElement;
  crop(crop: CropRecord, unit: string, options?: { href?: string | null }): HTMLElement;
  legend(measure: Measure): HTMLElement;
  face(row: Face | null | undefined, options?: { lazy?: boolean }): HTMLElement;
  chip(link: CircuitLink, row: FeatureRow | ClassRow | undefined, options?: ChipOptions): HTMLElement;
  chips(
    links: CircuitLink[],
    features: Table<FeatureRow>,
    classes: Table<ClassRow>,
    images?: Table<ImageRow>,
  ): HTMLElement;
  countOf(selected: number, all: number, name: string): string;
  imageLinks(
    record: Pick<ImageRecord, "predictions" | "tops">,
    features: Table<FeatureRow>,
    classes: Table<ClassRow>,
    images: Table<ImageRow>,
  ): HTMLElement;
  section(title: string, lead: string | null, ...children: Child[]): HTMLElement;
  missing(text: string): HTMLElement;
  neighbours(list: Neighbour, before: Neighbour | null, after: Neighbour | null): HTMLElement;
  neighbourKeys: Keys;
  searchField(placeholder: string, label: string, value: string | undefined): HTMLInputElement;
  searchKeys: Keys;
  toolbar(search: HTMLInputElement, ...children: Child[]): HTMLElement;
  select(
    name: string,
    label: string,
    options: [string, string][],
    chosen: string | undefined,
    change: (name: string, value: string) => void,
  ): HTMLElement;
  visualizations(records: VisualizationRecord[] | undefined, description: string): HTMLElement | null;
  beside(figure: HTMLElement | null, ...children: Child[]): HTMLElement;
  grid<Item>(host: HTMLElement, options: GridOptions<Item>): Grid<Item>;
  segmentation: AtlasSegmentation;
  explorer(
    record: Pick<ImageRecord, "segmentations"> & { id?: string },
    source: ExplorerSource,
    context: ExplorerContext,
  ): HTMLElement;
  /** A stage on which a place of an image of one's own is pointed at. */
  similarPlaces(file: File, source: ExplorerSource): HTMLElement;
}
