// Types for the parts of @std/text that we use: the standard library's npm build has no types.
export function closestString(givenWord: string, possibleWords: readonly string[]): string;
export function levenshteinDistance(a: string, b: string): number;
