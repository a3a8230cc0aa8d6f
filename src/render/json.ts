/** JSON that may be shown on a terminal: texts in it are of unknown origin. */

const unit = (text: string, at: number): string => `\\u${text.charCodeAt(at).toString(16).padStart(4, '0')}`;

/**
 * As JSON.stringify, with what would control a terminal or change the direction of writing escaped: it leaves all beyond C0 as it is.
 * Parsed it is the same. The only line ends are those of the indentation.
 */
export function renderJson(value: unknown, indent?: number): string {
  // In the text of JSON.stringify these are in strings only, but for the line ends between values.
  return JSON.stringify(value, null, indent).replace(/(?!\n)[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/gu, (found) =>
    Array.from({ length: found.length }, (_, at) => unit(found, at)).join(''),
  );
}
