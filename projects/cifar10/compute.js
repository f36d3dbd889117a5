/* This classifier answers as all image classifiers do. */

export { answer } from "./classify.js";
