// The few signs that the pages use, drawn as strokes. They are decoration: words stand beside them.

import { s } from "./dom.js";

const PATHS = {
  overview: "M3 13h5V3H3zM12 17h5V8h-5zM3 17h5v-1H3zM12 5h5V3h-5z",
  spend: "M10 2v16M14 5.5C13 4.4 11.700 4 10 4 7.600 4 6 5.200 6 7s1.500 2.600 4 3 4 1.300 4 3-1.600 3-4 3c-1.800 0-3.200-.5-4.200-1.700",
  quality: "M3 10.500l4.500 4.500L17 5.500",
  requests: "M3 5h14M3 10h14M3 15h9",
  policy: "M5 2.500h7l3.500 3.500v11.500H5zM12 2.500V6h3.500M7.500 10h5M7.500 13.500h5",
  providers: "M3 4h14v5H3zM3 11.500h14v5H3zM6 6.500h.010M6 14h.010",
  sun: "M10 6.500a3.500 3.500 0 1 0 0 7 3.500 3.500 0 0 0 0-7M10 1.500v2M10 16.500v2M1.500 10h2M16.500 10h2M4 4l1.400 1.400M14.600 14.600L16 16M4 16l1.400-1.400M14.600 5.400L16 4",
  moon: "M16.500 11.500A7 7 0 0 1 8.500 3.500a7 7 0 1 0 8 8",
  out: "M8 3H3.500v14H8M12 6l4 4-4 4M16 10H7.500",
  in: "M12 3h4.500v14H12M8 6l4 4-4 4M12 10H3.500",
  download: "M10 3v9M6.500 9l3.500 3.500L13.500 9M3.500 16.500h13",
  close: "M5 5l10 10M15 5L5 15",
  warning: "M10 3L18 17H2zM10 8v4M10 14.500h.010",
};

/** A sign by its name. */
export function icon(name) {
  return s(
    "svg", { class: "icon", viewBox: "0 0 20 20", "aria-hidden": "true", focusable: "false" },
    s("path", { d: PATHS[name] }),
  );
}

/** The project's mark. */
export function mark() {
  return s(
    "svg", { class: "mark", viewBox: "0 0 32 32", "aria-hidden": "true", focusable: "false" },
    s("rect", { width: 32, height: 32, rx: 7 }),
    s("path", { d: "M7 10h18M7 16h11M7 22h5" }),
  );
}
