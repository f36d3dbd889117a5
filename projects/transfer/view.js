/* The page of this classifier is that of all image classifiers. */

export { about, controls, show, title } from "./classification.js";
