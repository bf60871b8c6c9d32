// What @huggingface/transformers makes of a folder that `diptych export --format transformers.js` wrote, in Node or a page.

export async function features(library, name, modelType, options, asked) {
  const { AutoProcessor, AutoTokenizer, RawImage } = library;
  const isSiglip = modelType.startsWith("siglip");
  const [Vision, Text] = isSiglip
    ? [library.SiglipVisionModel, library.SiglipTextModel]
    : [library.CLIPVisionModelWithProjection, library.CLIPTextModelWithProjection];
  const tokenizer = await AutoTokenizer.from_pretrained(name);
  const tokens = tokenizer(asked.texts, { padding: isSiglip ? "max_length" : true, truncation: true });
  const texts = await (await Text.from_pretrained(name, options))(tokens);
  const pictures = await Promise.all(asked.pictures.map((path) => RawImage.read(path)));
  const processor = await AutoProcessor.from_pretrained(name);
  const images = await (await Vision.from_pretrained(name, options))(await processor(pictures));
  const rows = (output) => (output.text_embeds ?? output.image_embeds ?? output.pooler_output).tolist();
  return { version: library.env.version, texts: rows(texts), images: rows(images) };
}
