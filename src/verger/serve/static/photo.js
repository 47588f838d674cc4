// Makes a large photo small enough to be sent; the browser turns it upright.
const LARGE_BYTES = 2e6;
const MAX_SIDE = 2048;

/** Draw a photo on a canvas, at most `side` pixels wide and high, on white. */
export async function draw(photo, side) {
  const bitmap = await createImageBitmap(photo, { imageOrientation: "from-image" });
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas;
}

/** Give a photo as it is to be sent: itself, or a smaller JPEG of it. */
export async function shrink(photo) {
  if (photo.size <= LARGE_BYTES) return photo;
  try {
    const canvas = await draw(photo, MAX_SIDE);
    const small = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
    return small && small.size < photo.size ? small : photo;
  } catch {
    return photo; // the server may read a format that this browser cannot show
  }
}
