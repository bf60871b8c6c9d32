// Features of a folder that `diptych export --format transformers.js` wrote, as @huggingface/transformers computes them.
// node benchmarks/transformers_js.mjs FOLDER DTYPE < {"texts": [...], "pictures": [paths]}: prints JSON.
// The package is looked for where NODE_PATH or the working folder has it: npm i --ignore-scripts @huggingface/transformers
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { features } from "./transformers_js_features.mjs";

const [folder, dtype] = process.argv.slice(2);
const asked = JSON.parse(readFileSync(0, "utf8"));
const found = createRequire(resolve("./x.js")).resolve("@huggingface/transformers");
const library = await import(pathToFileURL(found).href);
library.env.allowRemoteModels = false;
library.env.localModelPath = dirname(resolve(folder));
const { model_type: modelType } = JSON.parse(readFileSync(`${folder}/config.json`, "utf8"));
const given = await features(library, basename(folder), modelType, { dtype, device: "cpu" }, asked);
console.log(JSON.stringify({ node: process.version, ...given }));
