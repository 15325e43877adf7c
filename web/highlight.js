// Colours for code: comments, strings, numbers and the words that many languages share. No grammar, one pass.

const LENGTH_MAX = 50_000;

const KEYWORDS = new Set(
  `abstract and as assert async await begin bool boolean break case catch char class const constexpr continue crate def default
  defer del delete do double dyn elif else elsif end enum except export extends extern false final finally float fn for foreach
  from fun func function global go goto if impl implements import in include inline instanceof int interface is lambda let local
  long loop match mod module move mut namespace new nil none None not null nullptr object of or override package pass private
  protected pub public raise ref require return self Self short signed sizeof static str string struct super switch template then
  this throw throws trait true True False try type typedef typename typeof undefined union unless unsafe unsigned until use using
  val var virtual void volatile where while with yield SELECT FROM WHERE INSERT INTO VALUES UPDATE SET DELETE CREATE TABLE JOIN
  LEFT RIGHT INNER OUTER ON GROUP ORDER BY LIMIT AND OR NOT NULL AS DISTINCT HAVING UNION ALTER DROP INDEX PRIMARY KEY`.split(/\s+/),
);

const HASH = /^(sh|bash|zsh|shell|console|py|python|rb|ruby|perl|pl|r|yaml|yml|toml|make|makefile|dockerfile|nix|elixir|julia|conf|ini)$/;
const DASHES = /^(sql|lua|haskell|hs|ada|elm)$/;
const PLAIN = /^(|text|txt|plain|plaintext|output|markdown|md|diff|csv|log)$/;
const MARKUP = /^(html|xml|svg|vue)$/;

const STRING = '"(?:[^"\\\\\\n]|\\\\.)*"?|\'(?:[^\'\\\\\\n]|\\\\.)*\'?|`(?:[^`\\\\]|\\\\.)*`?';
const NUMBER = "\\b(?:0[xX][\\da-fA-F_]+|0[bB][01_]+|\\d[\\d_]*(?:\\.\\d+)?(?:[eE][+-]?\\d+)?)";
const WORD = "[A-Za-z_]\\w*";

function comments(language) {
  if (MARKUP.test(language)) return "<!--[^]*?(?:-->|$)";
  if (HASH.test(language)) return "#[^\\n]*";
  if (DASHES.test(language)) return "--[^\\n]*";
  return "//[^\\n]*|/\\*[^]*?(?:\\*/|$)";
}

/** The code as a list of strings and { kind, text } with kind comment, string, number or keyword. */
export function highlight(code, language) {
  language = language.toLowerCase();
  if (PLAIN.test(language) || code.length > LENGTH_MAX) return [code];
  // A lifetime of Rust is no open string.
  const strings = language === "rust" || language === "rs" ? STRING.replace(/\|'.*?\|`/, "|'(?:[^'\\\\\\n]|\\\\.)'|`") : STRING;
  const pattern = new RegExp(`(?<comment>${comments(language)})|(?<string>${strings})|(?<number>${NUMBER})|(?<word>${WORD})`, "g");
  const parts = [];
  let from = 0;
  for (const match of code.matchAll(pattern)) {
    const { comment, string, number, word } = match.groups;
    const kind = comment ? "comment" : string ? "string" : number ? "number" : KEYWORDS.has(word) ? "keyword" : null;
    if (!kind || match[0] === "") continue;
    if (match.index > from) parts.push(code.slice(from, match.index));
    parts.push({ kind, text: match[0] });
    from = match.index + match[0].length;
  }
  if (from < code.length) parts.push(code.slice(from));
  return parts;
}
