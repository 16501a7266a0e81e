// Runs before the page is painted, so that nobody sees the other theme first. A plain script: modules come later.
try {
  const chosen = localStorage.getItem("nstgpu-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // No storage: the system's theme it is.
}
