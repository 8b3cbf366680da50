// The admin console's charts: its pages are not the console's, but the drawing is.
import { startCharts } from "./charts.js";

startCharts();
