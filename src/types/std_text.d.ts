// What is used of @std/text: the npm build of the standard library comes without types.
export function closestString(givenWord: string, possibleWords: readonly string[]): string;
export function levenshteinDistance(a: string, b: string): number;
