/* aftersend.js: page views and popup events, told to the host it came from. No cookies, no storage, no inline code. */
(function () {
  "use strict";

  var tag = document.currentScript;
  if (window.aftersend || !tag || !tag.src) return;

  var key = encodeURIComponent(tag.getAttribute("data-site") || "");
  var base = new URL(".", tag.src).href;
  var actions = ["open", "click", "post", "close", "error", "bounce", "custom"];
  var about = {};
  var waiting = [];
  var timer = 0;

  function cut(text, length) {
    return String(text).slice(0, length);
  }

  function remember(fields) {
    ["profile_id", "message_id", "campaign_id"].forEach(function (name) {
      if (fields && fields[name] != null) about[name] = cut(fields[name], 256);
    });
  }

  /* What becomes of a request is never the page's concern. */
  function quietly(work) {
    try {
      return work();
    } catch (error) {
      return false;
    }
  }

  function byBeacon(body) {
    return navigator.sendBeacon(base + "beacon?k=" + key, body);
  }

  function byFetch(body) {
    fetch(base + "beacon?k=" + key, {
      method: "POST",
      body: body,
      mode: "cors",
      credentials: "omit",
      keepalive: true,
    }).catch(function () {});
    return true;
  }

  /* One address holds one event: this is for browsers that have nothing better. */
  function byImages(events) {
    events.forEach(function (event) {
      new Image().src = base + "pixel.gif?k=" + key + "&b=" + encodeURIComponent(JSON.stringify(event));
    });
  }

  function flush() {
    clearTimeout(timer);
    timer = 0;
    while (waiting.length) {
      var events = waiting.splice(0, 10);
      var body = JSON.stringify(events);
      if (!quietly(byBeacon.bind(null, body)) && !quietly(byFetch.bind(null, body))) {
        quietly(byImages.bind(null, events));
      }
    }
  }

  function tell(type, fields) {
    var event = { type: type, at: Date.now(), url: cut(location.href, 2048) };
    Object.keys(about).forEach(function (name) {
      event[name] = about[name];
    });
    Object.keys(fields).forEach(function (name) {
      if (fields[name]) event[name] = fields[name];
    });
    if (waiting.length < 100) waiting.push(event);
    if (document.visibilityState === "hidden") flush();
    else timer = timer || setTimeout(flush, 500);
  }

  function view(name) {
    tell("page_view", { name: cut(name || document.title, 256), referrer: cut(document.referrer, 2048) });
  }

  /* Values that JSON can hold flat; whatever else is in there becomes text. */
  function flat(data) {
    var plain = {};
    Object.keys(data)
      .slice(0, 20)
      .forEach(function (name) {
        var value = data[name];
        plain[name] = typeof value === "number" || typeof value === "boolean" ? value : cut(value, 256);
      });
    return plain;
  }

  function popup(action, name, data) {
    if (actions.indexOf(action) < 0) {
      console.warn("aftersend: a popup can " + actions.join(", ") + "; not " + action);
      return;
    }
    tell("popup_" + action, { name: cut(name || "", 256), data: data && flat(data) });
  }

  window.aftersend = { popup: popup, view: view, set: remember, flush: flush };

  remember({
    profile_id: tag.getAttribute("data-profile"),
    message_id: tag.getAttribute("data-message"),
    campaign_id: tag.getAttribute("data-campaign"),
  });
  addEventListener("pagehide", flush);
  document.addEventListener("visibilitychange", function () {
    if (document.visibilityState === "hidden") flush();
  });
  if (tag.getAttribute("data-views") !== "off") {
    if (document.prerendering) document.addEventListener("prerenderingchange", view.bind(null, ""), { once: true });
    else view("");
  }
})();
