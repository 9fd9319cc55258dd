/** How an image of the corpus is made: tars of its layers, bottom first. */
export interface CorpusRecipe {
  readonly name: string;
  /** Tags of formats that cannot express it, with the reason. */
  readonly cannot: Readonly<Record<string, string>>;
  /** Builds the layers below `work`; paths of uncompressed tars. */
  layers(work: string): Promise<string[]>;
}

export const CORPUS_RECIPES: readonly CorpusRecipe[] = [];
