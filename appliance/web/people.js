// Who may sign in, and one's own password.

import { ask, get, post } from "./api.js";
import { say } from "./change.js";
import { field, fill, form, h, problem } from "./dom.js";
import { newPasswordField } from "./door.js";
import { texts } from "./texts.js";

/** @typedef {import("./types.js").User} User */

const words = texts.people;
/** @type {User["role"][]} */
const ROLES = ["viewer", "operator", "installer", "admin"];

/** @type {import("./app.js").Screen} */
export async function peopleScreen(place) {
  const { session } = place;
  const own = session.user ?? "";
  const list = h("ul", { class: "list" });
  const isAdmin = session.role === "admin";
  const draw = async () => {
    try {
      const users = /** @type {User[]} */ ((await get("/api/v1/users")).users);
      fill(list, users.map((user) => userLine(user, own, draw)));
    } catch (error) {
      fill(list, h("li", null, problem(error)));
    }
  };
  if (isAdmin) await draw();
  return h(
    "div",
    null,
    h("h1", null, words.title),
    h("h2", null, words.you),
    h("p", null, texts.who(own, words.roles[session.role])),
    own ? h("details", null, h("summary", null, words.ownPassword), ownPasswordForm(own)) : null,
    h("div", { class: "row" }, h("button", { type: "button", onclick: place.signOut }, texts.signOut)),
    isAdmin ? [h("h2", null, words.all), list, h("details", null, h("summary", null, words.add), addForm(draw))] : null,
  );
}

/** @param {string} own */
function ownPasswordForm(own) {
  const current = field(words.current, h("input", { type: "password", autocomplete: "current-password", maxlength: 256 }));
  const fresh = newPasswordField(words.fresh, () => own);
  return form({ button: words.setButton, busy: words.setBusy }, [current.element, fresh.element], async () => {
    if (!fresh.isGood()) return;
    const body = { password: fresh.input.value, current: current.input.value };
    await ask("PUT", `/api/v1/users/${encodeURIComponent(own)}/password`, { body, quiet: true });
    current.input.value = "";
    fresh.input.value = "";
    say("good", words.set);
  });
}

/**
 * @param {User} user
 * @param {string} own
 * @param {() => Promise<void>} draw
 */
function userLine(user, own, draw) {
  const path = `/api/v1/users/${encodeURIComponent(user.name)}`;
  const cameras = user.role === "viewer" ? ` (${(user.mountpoints ?? []).join(", ")})` : "";
  const line = h("li", null, h("h3", null, user.name), h("p", { class: "quiet" }, words.roles[user.role], ", ", words.roleMeans[user.role], cameras));
  if (user.name === own) return line;
  const fresh = newPasswordField(words.setPassword(user.name), () => user.name);
  const setting = form({ button: words.setButton, busy: words.setBusy }, [fresh.element], async () => {
    if (!fresh.isGood()) return;
    await ask("PUT", `${path}/password`, { body: { password: fresh.input.value } });
    fresh.input.value = "";
    say("good", words.set);
  });
  const removal = form({ button: words.removeYes(user.name), busy: texts.camera.removing }, [h("p", null, words.removeAsk(user.name))], async () => {
    await ask("DELETE", path);
    await draw();
  });
  line.append(h("details", null, h("summary", null, words.setPassword(user.name)), setting), h("details", null, h("summary", null, words.removeYes(user.name)), removal));
  return line;
}

/** @param {() => Promise<void>} draw */
function addForm(draw) {
  const name = field(words.name, h("input", { autocomplete: "off", autocapitalize: "none", spellcheck: "false", maxlength: 64 }));
  const role = h("select", null, ...ROLES.map((it) => h("option", { value: it }, `${words.roles[it]}: ${words.roleMeans[it]}`)));
  const cameras = field(words.cameras, h("input", { autocomplete: "off", autocapitalize: "none", spellcheck: "false" }), words.camerasHint);
  const password = newPasswordField(words.password, () => name.input.value.trim());
  role.addEventListener("change", () => {
    cameras.element.hidden = role.value !== "viewer";
  });
  return form({ button: words.addButton, busy: words.addBusy }, [name.element, field(words.role, role).element, cameras.element, password.element], async () => {
    const wanted = name.input.value.trim();
    if (!wanted) return name.wrong(words.needName);
    if (!password.isGood()) return;
    /** @type {Record<string, unknown>} */
    const wish = { name: wanted, role: role.value, password: password.input.value };
    if (role.value === "viewer") wish.mountpoints = cameras.input.value.split(/[,\s]+/).filter(Boolean);
    await post("/api/v1/users", wish);
    say("good", words.added(wanted));
    await draw();
  });
}
