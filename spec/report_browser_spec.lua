-- SPDX-License-Identifier: MIT
-- Pages of luna report in headless Chromium: all of them is seen at a width of 1280, light and
-- dark, and no text lies upon another; as it is the browser that says so, a copy of the page has a
-- script, which the page itself would not let run.

local files = require "spec.support.files"
local helper = require "spec.support.helper"
local program = require "spec.support.program"

local directory

-- What is wrong on the page, by the browser's measure, as the text of the title.
local LOOK = [[
<script>
const wrong = [];
if (document.documentElement.scrollWidth > innerWidth)
  wrong.push("the page is " + document.documentElement.scrollWidth + " wide");
for (const one of document.querySelectorAll("h1, h2, h3, h4, p, td, th, li, .outcome"))
  if (one.scrollWidth > one.clientWidth + 1) wrong.push("cut off: " + one.textContent);
for (const picture of document.querySelectorAll("svg")) {
  const box = picture.getBoundingClientRect();
  const texts = [...picture.querySelectorAll("text")].map(t => [t.getBoundingClientRect(), t]);
  for (const [a, one] of texts) {
    if (a.left < box.left - 1 || a.right > box.right + 1) wrong.push("outside: " + one.textContent);
    for (const [b, other] of texts)
      if (one !== other && a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 2
          && b.top < a.bottom - 2)
        wrong.push("upon another: " + one.textContent + " and " + other.textContent);
  }
}
for (const one of document.querySelectorAll("img"))
  if (!one.complete || one.naturalWidth === 0) wrong.push("a picture is damaged");
document.title = "looked: " + wrong.join("; ");
</script>]]

local function browse(page, options)
  return helper.sh(("cd %s && %s timeout 50 chromium --headless --no-sandbox --disable-gpu "
    .. "--hide-scrollbars --user-data-dir=%s/browser %s file://%s/%s 2>/dev/null"):format(directory,
    helper.program "", directory, options, directory, page))
end

-- The size of a PNG file in pixels, and in bytes.
local function size_of(path)
  local bytes = files.read(path)
  assert.equal("\137PNG\r\n\26\n", bytes:sub(1, 8))
  local function number(at)
    local a, b, c, d = bytes:byte(at, at + 3)
    return ((a * 256 + b) * 256 + c) * 256 + d
  end
  return { number(17), number(21) }, #bytes
end

local function check(words, before)
  local output, status = program.luna(directory, words .. " 2>/dev/null", before)
  local text = files.read(directory .. "/page.html")
  local copy, count = text:gsub('<meta http%-equiv="Content%-Security%-Policy"[^>]*>', "")
  assert.equal(1, count)
  copy = copy:gsub("</body>", function(tag) return LOOK .. tag end)
  files.write(directory .. "/copy.html", copy)
  for _, look in ipairs { "--window-size=1280,1400",
    "--window-size=1280,1400 --blink-settings=preferredColorScheme=0", "--window-size=640,1400" } do
    local dom = browse("copy.html", look .. " --virtual-time-budget=2000 --dump-dom")
    assert.equal("looked: ", dom:match "<title>(.-)</title>", look)
  end
  local dom = browse("page.html", "--window-size=1280,1400 --screenshot=page.png --dump-dom")
  assert.is_nil(dom:find "<script")
  assert.matches("</main>", dom)
  local size, bytes = size_of(directory .. "/page.png")
  assert.same({ 1280, 1400 }, size)
  assert.is_true(bytes > 30000, bytes)
  return dom, output, status
end

helper.kvm("the page of a run, in a browser,", function()
  setup(function()
    directory = program.directory()
    files.write(directory .. "/many.lua", [[
      local luna = require "lunavisor"
      for i = 1, 2 do
        local vm, ram = luna.vm(), luna.buffer "64K"
        vm.default:map(ram, 0)
        ram:write(0x1000, luna.asm("mov cx, 3000\n again: mov al, '<'\n out 0xe9, al\n"
          .. "in al, 0x60\n loop again\n hlt", { bits = 16, org = 0x1000 }))
        vm:pio(0xe9, 1, { name = ("a device with a long name, "):rep(12), write = function() end })
        vm:pio(0x60, 1, { name = "<script>", read = function() return 3 end })
        for _ = 1, i do vm:vcpu { mode = "real", rip = 0x1000 } end
        for _ = 1, 3 do vm:space():map(ram, 0x10000, { rights = "r-x" }) end
        vm:run { timeout = 60 }
      end
      error(("no good "):rep(100))]])
  end)
  teardown(function() helper.sh("rm -r " .. directory) end)

  local function browser()
    if select(2, helper.sh "command -v chromium") ~= 0 then
      pending "chromium is not installed: scripts/setup clients"
    end
  end

  it("tells of a triple fault", function()
    browser()
    local dom, _, status = check "boot triple.elf --timeout 120 --report page.html"
    assert.equal(125, status)
    helper.contains("shutdown (triple fault)", dom)
  end)

  it("tells of several VMs whose script fails", function()
    browser()
    local dom, _, status = check "report page.html many.lua"
    assert.equal(1, status)
    helper.contains("&lt;script&gt;", dom)
    helper.contains("<h2>VM 2", dom)
  end)

  it("tells of firmware", function()
    browser()
    if not io.open "/usr/share/seabios/bios.bin" then pending "seabios is not installed" end
    local dom, _, status = check("boot disk.img --timeout 120 --wait-for login: --report page.html",
      "LUNA_ACCEL=soft")
    assert.equal(0, status)
    helper.contains('<img class="screen"', dom)
  end)
end)
