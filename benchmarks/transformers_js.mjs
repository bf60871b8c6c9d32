// Features of a folder that `diptych export --format transformers.js` wrote, as @huggingface/transformers computes them.
// node benchmarks/transformers_js.mjs FOLDER DTYPE < {"texts": [...], "pictures": [paths]}: prints JSON.
// The package is looked for where NODE_PATH or the working folder has it: npm i --ignore-scripts @huggingface/transformers
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, dtype] = process.argv.slice(2);
const asked = JSON.parse(readFileSync(0, "utf8"));
const found = createRequire(resolve("./x.js")).resolve("@huggingface/transformers");
const library = await import(pathToFileURL(found).href);
const { env, AutoProcessor, AutoTokenizer, RawImage } = library;
env.allowRemoteModels = false;
env.localModelPath = dirname(resolve(folder));
const name = basename(folder);
const { model_type } = JSON.parse(readFileSync(`${folder}/config.json`, "utf8"));
const [Vision, Text] = model_type.startsWith("siglip")
  ? [library.SiglipVisionModel, library.SiglipTextModel]
  : [library.CLIPVisionModelWithProjection, library.CLIPTextModelWithProjection];
const options = { dtype, device: "cpu" };
const tokenizer = await AutoTokenizer.from_pretrained(name);
const tokens = tokenizer(asked.texts, { padding: model_type.startsWith("siglip") ? "max_length" : true, truncation: true });
const texts = await (await Text.from_pretrained(name, options))(tokens);
const pictures = await Promise.all(asked.pictures.map((path) => RawImage.read(path)));
const processor = await AutoProcessor.from_pretrained(name);
const images = await (await Vision.from_pretrained(name, options))(await processor(pictures));
const rows = (output) => (output.text_embeds ?? output.image_embeds ?? output.pooler_output).tolist();
console.log(JSON.stringify({ version: env.version, node: process.version, texts: rows(texts), images: rows(images) }));
