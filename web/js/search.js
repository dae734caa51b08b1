// Finding a person by what people type: any spelling of romaji, kana, kanji, Chinese, her unit.

// The same character as Japan, mainland China and Taiwan write it (Unihan's variants): Japan's first.
const SAME = `並并 亜亚亞 来來 倉仓 優优 円圆圓 凛凜 双雙 園园 場场 塩盐鹽 塚冢 夢梦 奥奧 姫姬 宮宫 実实實 尋寻 岡冈 峯峰 島岛嶋
  嵐岚 恋戀 恵惠 愛爱 斉齐齊 斎斋齋 時时 条條 東东 栖棲 棟栋 楊杨 楓枫 槙槇 横橫 樹树 橋桥 櫻樱桜 沢泽澤 浅淺 浜滨濱 涼凉 渋涩澀
  瀬濑瀨 灯燈 真眞 礼禮 穂穗 篠筱 糸丝絲 紀纪 紗纱 結结 絵绘繪 綾绫 緋绯 緒绪 織织 聖圣 華华 葉叶 蓮莲 薫薰 藍蓝 蘭兰 衛卫 見见
  詩诗 諸诸 財财 貴贵 賀贺 輝辉 輿舆 遊游 郷乡鄉 鈴铃 鍋锅 鐘钟 長长 間间 関关關 雛雏 難难 霧雾 響响 頼赖賴 風风 颯飒 飛飞 馬马
  鳥鸟 鳩鸠 鶴鹤 鷹鹰 鷺鹭 麗丽 黒黑 龍龙竜`;
const HERS = new Map(SAME.split(/\s+/).flatMap(([first, ...others]) => others.map((other) => [other, first])));
const OTHERS = new RegExp(`[${[...HERS.keys()].join("")}]`, "g");

// Romaji of all schools, long vowels or not, half typed or whole, as one: Saijou, Saijo, Saizyo; Tsukioka, Tukioka.
const ROMAJI = [[/ts/g, "t"], [/s[hy]/g, "s"], [/(?:ch|ty|cy)/g, "t"], [/(?:jy|zy|dz|j)/g, "z"], [/f/g, "h"], [/[cq]/g, "k"],
  [/l/g, "r"], [/v/g, "b"], [/m(?=[bpm])/g, "n"], [/oh(?![aeiouy])/g, "o"], [/ou/g, "o"], [/([a-z])\1+/g, "$1"]];

// What texts are compared by. Lines and tabs stay: many texts are folded at once.
export function fold(text) {
  let folded = text.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").normalize("NFC").toLowerCase()
    .replace(/[\u30a1-\u30f6]/g, (kana) => String.fromCharCode(kana.charCodeAt(0) - 0x60))
    .replace(OTHERS, (char) => HERS.get(char)).replace(/[^\p{L}\p{N}\n\t]|ー/gu, "");
  for (const [from, to] of ROMAJI) folded = folded.replace(from, to);
  return folded;
}

const turned = (name) => name.split(" ").reverse().join(" ");
const plain = (text) => text.replace(/[\n\t]/g, " ");

// Something to search in: `find(typed)` gives the numbers of those that fit, and which of them fits best.
export function index(people) {
  const lines = fold(people.map(({ name, ja, kana, aliases, unit }) =>
    ["", name, turned(name), ja, kana, turned(kana), ...aliases, unit].map(plain).join("\t")).join("\n")).split("\n");
  return (typed) => {
    const words = typed.split(/\s+/).map((one) => fold(one.replace(/c$/i, ""))).filter(Boolean);
    const found = lines.flatMap((line, at) => words.every((one) => line.includes(one)) ? [at] : []);
    const best = found.find((at) => lines[at].includes(`\t${words.join("")}`)) ??
      found.find((at) => words.some((one) => lines[at].includes(`\t${one}`))) ?? found[0];
    return { found, best };
  };
}
