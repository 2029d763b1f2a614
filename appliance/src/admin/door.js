// Sends the form of the page that claims or logs in, as JSON, and shows what went wrong.
const form = document.querySelector("form");
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const said = form.querySelector("[role=alert]");
  const button = form.querySelector("button");
  button.disabled = true;
  said.textContent = "One moment ...";
  try {
    const answer = await fetch(form.dataset.action, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(Object.fromEntries(new FormData(form))),
    });
    if (answer.ok) {
      location.replace("/");
      return;
    }
    said.textContent = (await answer.json()).detail;
  } catch {
    said.textContent = "The gateway did not answer. Try again.";
  }
  button.disabled = false;
});
