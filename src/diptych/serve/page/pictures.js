// Pictures that come in by drop, paste or file. A large one is made small here: the model sees a few hundred pixels.

const SIDE = 1024; // px
const LARGE = 1_500_000; // bytes from which on a file is made smaller

export async function taken(file) {
  if (file.size > LARGE) {
    const small = await smaller(file).catch(() => null); // a kind that this browser does not know goes as it is
    if (small) return small;
  }
  return new Promise((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => fail(new Error("The file cannot be read."));
    reader.readAsDataURL(file);
  });
}

async function smaller(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const drawing = canvas.getContext("2d");
  drawing.fillStyle = "white"; // as the server lays what is transparent
  drawing.fillRect(0, 0, canvas.width, canvas.height);
  drawing.imageSmoothingQuality = "high";
  drawing.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", 0.92);
}
