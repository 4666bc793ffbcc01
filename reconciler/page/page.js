// Shows what the reconciler said last. Law: what comes from outside becomes text, never markup and never an address.

const POLL_MS = 10_000, POLL_ALONE_MS = 4_000, OLD_S = 300
const SYNC = { Synced: ["✔", "good"], OutOfSync: ["≠", "warn"], Unknown: ["?", "none"] }
const HEALTH = {
  Healthy: ["✔", "good"], Progressing: ["↻", "moving"], Degraded: ["✖", "bad"], Missing: ["∅", "bad"], Unknown: ["?", "none"],
}
const DRIFT = { no: ["✔", "good", "no drift"], yes: ["≠", "warn", "drift"], unknown: ["?", "none", "not known"] }
// Of most conditions "True" is the good one; of these it is not.
const UNWANTED = { Stalled: "bad", Drifted: "warn", Suspended: "warn", Reconciling: "moving" }

let etag = "", shown = null, heardAt = 0, ageAt = null, skewMs = 0, alone = true, lost = ""
const rows = new Map(), open = new Set()

const at = id => document.getElementById(id)

function el(name, properties = {}, ...children) {
  const made = document.createElement(name)
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") made.className = value
    else if (key === "on") for (const [event, does] of Object.entries(value)) made.addEventListener(event, does)
    else made.setAttribute(key, value)
  }
  made.append(...children.filter(child => child !== null && child !== undefined && child !== ""))
  return made
}

const chip = ([sign, colour], word) => el("span", { class: `chip ${colour}` }, el("span", { "aria-hidden": "true" }, `${sign} `), word)
const known = (table, word) => table[word] ?? ["?", "none"]

// ── Times ────────────────────────────────────────────────────────────────────────────────────────────────────────────

function age(seconds) {
  const past = Math.max(0, Math.round(seconds))
  if (past < 60) return `${past} s ago`
  if (past < 3600) return `${Math.floor(past / 60)} min ago`
  if (past < 172800) return `${Math.floor(past / 3600)} h ago`
  return `${Math.floor(past / 86400)} days ago`
}

// A moment as its age; which one it was, on hover. `when`: ISO 8601, or seconds since the epoch.
function moment(when) {
  const date = new Date(typeof when === "number" ? when * 1000 : when)
  if (!when || Number.isNaN(date.getTime())) return ""
  const made = el("time", { datetime: date.toISOString(), title: `${date.toLocaleString()} (${date.toISOString()})` })
  made.textContent = age((Date.now() + skewMs - date.getTime()) / 1000)
  return made
}

function refreshTimes() {
  for (const one of document.querySelectorAll("time")) one.textContent = age((Date.now() + skewMs - Date.parse(one.dateTime)) / 1000)
  showLooked()
}

const lookAge = () => (ageAt === null ? null : ageAt + (Date.now() - heardAt) / 1000)

function showLooked() {
  const past = lookAge()
  at("looked").textContent = lost ? `Connection lost: ${lost}` : past === null ? "No look has ended yet" : `Last look ${age(past)}`
  if (shown) showBanners(shown.status)
}

// ── Parts ────────────────────────────────────────────────────────────────────────────────────────────────────────────

function banner(kind, title, lines = []) {
  return el("div", { class: `banner ${kind}`, role: "alert" }, el("strong", {}, title),
    lines.length ? el("ul", {}, ...lines.map(line => el("li", {}, line))) : "")
}

let bannersNow = ""
function showBanners(status) {
  const found = []
  if (lost) found.push(["bad", "⚠ No connection to the reconciler. Below is how things were; they may be otherwise by now.", []])
  if (!status.complete) {
    found.push(["bad", "⚠ Incomplete: not everything could be seen. That nothing is listed does not mean that nothing drifted.",
      status.unseen.map(one => `${one.what}: ${one.why}`)])
  } else if (lookAge() !== null && lookAge() > OLD_S) {
    found.push(["warn", `⚠ The last look ended ${age(lookAge())}. A step may be under way; or the reconciler does not go on.`, []])
  }
  if (status.source_away) found.push(["warn", `⚠ The repository cannot be read: ${status.source_away}. What is wanted is as of the last commit that could.`, []])
  for (const one of status.credentials) found.push(["warn", `${one.id}: ${one.name} ${one.ends ? `ends ${one.ends}` : "could not be read here, so nobody knows when it ends"}`, []])
  for (const note of status.notes) found.push(["warn", note, []])
  const now = JSON.stringify(found)
  if (now === bannersNow) return
  bannersNow = now
  at("banners").replaceChildren(...found.map(one => banner(...one)))
}

function tile(title, ...children) {
  return el("div", { class: "tile" }, el("h2", {}, title), el("p", {}, ...children))
}

function counted(apps, field, table) {
  const numbers = Object.keys(table).map(word => [word, apps.filter(app => app[field] === word).length])
  const chips = numbers.filter(([, number]) => number).map(([word, number]) => chip(table[word], `${number} ${word}`))
  return chips.length ? chips : ["none"]
}

function showSummary(status) {
  const [sign, colour, word] = DRIFT[status.drift] ?? DRIFT.unknown
  const drifted = new Set(shown.drift.apps.map(one => one.id).filter(id => id !== "*")).size
  at("summary").replaceChildren(
    tile("Drift", chip([sign, colour], status.drift === "yes" ? `${drifted} drifted` : word),
      status.complete ? "" : chip(["⚠", "bad"], "incomplete")),
    tile("Sync", ...counted(status.apps, "sync", SYNC)),
    tile("Health", ...counted(status.apps, "health", HEALTH)),
    ...(status.orphans.length ? [tile("Not ours", ...status.orphans.map(one => chip(["∅", "none"], one.id)))] : []),
    ...(status.workers ? [tile("Workers", chip(known(SYNC, status.workers.sync), status.workers.sync))] : []))
}

function showConditions(status) {
  at("conditions").replaceChildren(...status.conditions.map(one => {
    const looks = one.type in UNWANTED
      ? { True: ["!", UNWANTED[one.type]], False: ["–", "none"] }
      : { True: ["✔", "good"], False: ["✖", "bad"] }
    return el("li", {}, chip(known(looks, one.status), `${one.type}: ${one.status}`), el("span", {}, one.reason),
      el("span", { class: "quiet" }, one.message), el("span", { class: "quiet" }, "since ", moment(one.lastTransitionTime)))
  }))
}

function cell(is, label, ...children) {
  return el("td", { role: "cell", "data-is": is, "data-label": label }, ...children)
}

function rowOf(app) {
  const button = el("button", { class: "app", type: "button", "aria-expanded": "false", on: { click: () => toggle(app.id) } }, app.id)
  const drifted = app.class ? [el("p", {}, app.class), el("p", { class: "quiet" }, app.actor || "", app.actor && app.since ? ", " : "", moment(app.since))] : []
  return el("tr", { role: "row" }, cell("app", "App", button),
    cell("sync", "Sync", chip(known(SYNC, app.sync), app.sync)), cell("health", "Health", chip(known(HEALTH, app.health), app.health)),
    cell("why", "Why", ...(app.reason || app.message ? [el("div", {}, app.reason ? el("p", {}, app.reason) : "", app.message ? el("p", { class: "quiet" }, app.message) : "")] : [])),
    cell("drift", "Drift", ...(drifted.length ? [el("div", {}, ...drifted)] : [])))
}

// Rows that did not change stay as they are, so a thousand of them cost little.
function showApps(status) {
  const said = new Map(status.apps.map(app => [app.id, app]))
  for (const [id, row] of rows) if (!said.has(id)) { row.made.remove(); row.more?.remove(); rows.delete(id); open.delete(id) }
  let before = null
  for (const app of status.apps) {
    const content = JSON.stringify(app), row = rows.get(app.id)
    if (!row) rows.set(app.id, { content, app, made: rowOf(app), more: null })
    else if (row.content !== content) {
      const made = rowOf(app), held = row.made.contains(document.activeElement)
      row.made.replaceWith(made)
      if (held) made.querySelector("button").focus()
      Object.assign(row, { content, app, made })
      if (open.has(app.id)) expand(row)
    }
    const now = rows.get(app.id)
    const place = before ? (before.more ?? before.made).nextSibling : at("rows").firstChild
    if (place !== now.made) { at("rows").insertBefore(now.made, place); if (now.more) now.made.after(now.more) }
    before = now
  }
  filter()
}

function filter() {
  const text = at("find").value.trim().toLowerCase(), amiss = at("amiss").checked
  let visible = 0
  for (const { app, made, more } of rows.values()) {
    const well = app.sync === "Synced" && app.health === "Healthy"
    const here = (!amiss || !well) && (!text || `${app.id} ${app.sync} ${app.health} ${app.reason} ${app.message}`.toLowerCase().includes(text))
    made.hidden = !here
    if (more) more.hidden = !here
    visible += here
  }
  at("count").textContent = visible === rows.size ? `${rows.size}` : `${visible} of ${rows.size}`
  at("none").hidden = visible > 0
  const complete = shown?.status.complete
  at("none").textContent = rows.size ? "No app fits." : complete ? "git names no app, and none of ours runs." : "Not known: nothing was seen yet."
}

function toggle(id) {
  const row = rows.get(id)
  if (open.delete(id)) {
    row.more.remove()
    row.more = null
    row.made.querySelector("button").setAttribute("aria-expanded", "false")
  } else {
    open.add(id)
    expand(row)
  }
}

function expand(row) {
  row.more?.remove()
  const story = el("dl", { class: "story" }, el("dt", {}, "Asking …"))
  const changes = row.app.changes.length ? el("table", { role: "table" },
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...["Differs", "Runs", "Wanted"].map(word => el("th", { role: "columnheader", scope: "col" }, word)))),
    el("tbody", { role: "rowgroup" }, ...row.app.changes.map(one => el("tr", { role: "row" },
      cell("field", "Differs", el("code", {}, one.field)), cell("live", "Runs", one.live || "–"), cell("desired", "Wanted", one.desired || "–"))))) : ""
  row.more = el("tr", { role: "row" }, el("td", { role: "cell", class: "more", colspan: "5" }, story, changes))
  row.made.after(row.more)
  row.made.querySelector("button").setAttribute("aria-expanded", "true")
  ask(`explain.json?app=${encodeURIComponent(row.app.id)}`).then(
    told => story.replaceChildren(...told.rows.flatMap(one => [el("dt", {}, one.name), el("dd", {}, one.text)])),
    error => story.replaceChildren(el("dt", {}, "Not told"), el("dd", {}, String(error.message))))
}

function showPlan(plan) {
  at("plan-id").textContent = plan.id ?? ""
  const steps = plan.steps ?? [], held = plan.held ?? [], problems = plan.problems ?? []
  at("plan").replaceChildren(
    plan.gate ? banner("warn", `⚠ ${plan.gate.reason}: ${plan.gate.message}`, plan.gate.fix ? [plan.gate.fix] : []) : "",
    plan.source ? el("p", { class: "quiet" }, `${plan.source.ref} ${plan.source.commit.slice(0, 7)} “${plan.source.subject}”`) : "",
    ...(problems.length ? [el("h3", {}, "Wrong in the repository"), el("ul", {}, ...problems.map(one => el("li", {}, el("code", {}, one.where), ` ${one.message} `, el("span", { class: "quiet" }, one.fix))))] : []),
    steps.length ? el("ol", {}, ...steps.map(stepOf)) : el("p", {}, shown.status.complete ? "Nothing to do." : "No steps; but not everything was seen."),
    ...(held.length ? [el("h3", {}, "Held"), el("ul", {}, ...held.map(one => el("li", {}, el("strong", {}, one.app_id), ` ${one.reason}: ${one.message} `, el("span", { class: "quiet" }, one.fix))))] : []))
}

function stepOf(step) {
  const effect = step.effect ?? {}, impact = effect.impact && effect.impact !== "none" ? chip(["", effect.impact === "interruption" || effect.impact === "delete" ? "warn" : "none"], effect.impact) : ""
  return el("li", {}, el("code", {}, step.address), " ", impact, " ", step.drift ? chip(["≠", "warn"], "undoes drift") : "", el("div", { class: "quiet" }, step.why, effect.note ? `; ${effect.note}` : "", effect.takes_s ? `; usually takes ${Math.round(effect.takes_s)} s` : ""))
}

async function showHistory() {
  if (!at("history").open) return
  try {
    const told = await ask("history.json")
    at("entries").replaceChildren(!told.kept ? el("p", { class: "quiet" }, "This reconciler keeps no history.") : !told.entries.length ? el("p", { class: "quiet" }, "Nothing was done yet.")
      : el("table", { role: "table", "aria-labelledby": "history-title" },
        el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...["When", "Who", "What", "App", "Result"].map(word => el("th", { role: "columnheader", scope: "col" }, word)))),
        el("tbody", { role: "rowgroup" }, ...told.entries.map(one => el("tr", { role: "row" },
          cell("when", "When", moment(one.at)), cell("who", "Who", one.by), cell("what", "What", one.what), cell("of", "App", one.app_id), cell("result", "Result", one.result))))))
  } catch (error) {
    at("entries").replaceChildren(el("p", { class: "banner bad" }, `Not told: ${error.message}`))
  }
}

// ── The reconciler ───────────────────────────────────────────────────────────────────────────────────────────────────

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store" })
  const told = await answer.json()
  if (!answer.ok) throw new Error(told.error ? `${told.error} ${told.hint ?? ""}` : `HTTP ${answer.status}`)
  return told
}

function show(told) {
  shown = told
  const { status } = told
  document.body.dataset.complete = status.complete ? "yes" : "no"
  document.title = `${status.complete ? "" : "⚠ incomplete: "}${status.target || "Reconciler"}`
  at("target").textContent = status.target
  at("source").textContent = status.revision
  showSummary(status)
  showConditions(status)
  showApps(status)
  showPlan(told.plan)
  showHistory()
}

let asking = false, again = false
async function refresh() {
  if (asking) { again = true; return }
  asking = true
  try {
    const answer = await fetch("status.json", { cache: "no-store", headers: etag ? { "If-None-Match": etag } : {} })
    if (!answer.ok && answer.status !== 304) throw new Error(`HTTP ${answer.status}`)
    const told = answer.status === 304 ? null : await answer.json()
    const past = answer.headers.get("x-age-s")
    heardAt = Date.now()
    ageAt = past ? Number(past) : null
    etag = answer.headers.get("etag") ?? ""
    lost = ""
    if (told) {
      if (told.status.observed_at && ageAt !== null) skewMs = Date.parse(told.status.observed_at) + ageAt * 1000 - heardAt
      show(told)
    }
  } catch (error) {
    lost = error.message
  } finally {
    asking = false
    showLooked()
  }
  if (again) { again = false; refresh() }
}

function follow() {
  const events = new EventSource("events")
  events.onmessage = refresh
  events.onopen = () => { alone = false }
  // Closed for good, or trying again: ask at once whether anybody is there, and more often meanwhile.
  events.onerror = () => { alone = true; refresh() }
}

function poll() {
  setTimeout(async () => { if (!document.hidden) await refresh(); poll() }, alone ? POLL_ALONE_MS : POLL_MS)
}

at("find").addEventListener("input", filter)
at("amiss").addEventListener("change", filter)
at("history").addEventListener("toggle", showHistory)
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh() })
setInterval(refreshTimes, 5000)
await refresh()
follow()
poll()
