// Before anything is drawn: the colours that were chosen here, if any were. It is no module, for those come too late.

(() => {
  const root = document.documentElement;
  const chosen = () => {
    try {
      return localStorage.getItem("rtpush-theme") ?? "";
    } catch {
      return ""; // there is no storage in this window
    }
  };
  const show = (theme) => {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
  };
  show(chosen());
  document.addEventListener("DOMContentLoaded", () => {
    const radios = document.querySelectorAll("#theme input");
    for (const radio of radios) {
      radio.checked = radio.value === (root.dataset.theme ?? "");
      radio.addEventListener("change", () => {
        show(radio.value);
        try {
          localStorage.setItem("rtpush-theme", radio.value);
        } catch {
          // It is chosen for this page alone.
        }
      });
    }
  });
})();
