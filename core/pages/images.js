/* Image files as pixels and back, in a worker: upright, in RGB, transparency on white, color profiles left aside, as the
infer programs read them. */

const MAX_PIXELS = 25e6;

/** {width, height, data: uint8 RGB}. longest: resized to that longer
side where it is not 0. Throws for what is no image, and for more than MAX_PIXELS. */
export async function decode(blob, longest = 0) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Error("This file is not an image that this browser can read.");
  }
  const scale = longest ? longest / Math.max(bitmap.width, bitmap.height) : 1;
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  if (width * height > MAX_PIXELS) {
    throw new Error(`An image of ${width} × ${height} pixels is too large here; at most ${MAX_PIXELS / 1e6} million.`);
  }
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const four = context.getImageData(0, 0, width, height).data;
  const data = new Uint8Array(3 * width * height);
  for (let from = 0, to = 0; from < four.length; from += 4) {
    data[to++] = four[from];
    data[to++] = four[from + 1];
    data[to++] = four[from + 2];
  }
  return { width, height, data };
}

/** A data URL of a PNG file. data: uint8 [height, width, channels], of 1 or 3 channels. */
export async function toPng(data, width, height, channels = 3) {
  const image = new ImageData(width, height);
  for (let pixel = 0; pixel < width * height; pixel++) {
    for (let k = 0; k < 3; k++) image.data[4 * pixel + k] = data[channels * pixel + (channels === 3 ? k : 0)];
    image.data[4 * pixel + 3] = 255;
  }
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(image, 0, 0);
  const bytes = new Uint8Array(await (await canvas.convertToBlob({ type: "image/png" })).arrayBuffer());
  let text = "";
  for (let start = 0; start < bytes.length; start += 32768) {
    text += String.fromCharCode(...bytes.subarray(start, start + 32768));
  }
  return `data:image/png;base64,${btoa(text)}`;
}
