-- SPDX-License-Identifier: MIT
-- The page of luna report: what report.lua has seen of a run, as HTML that needs nothing else, no
-- file, no network and no script. All that comes from a guest goes through markup.escape.

local base64 = require "lunavisor.text.base64"
local chart = require "lunavisor.measure.chart"
local markup = require "lunavisor.text.markup"
local point = require "lunavisor.text.point"
local style = require "lunavisor.measure.style"
local symbols = require "lunavisor.text.symbols"
local units = require "lunavisor.text.units"

local escape, number = markup.escape, units.number

local M = {}

local ROWS = 12 -- of a table
local FEW = 10  -- exits: of fewer, shares of time and rates say nothing

local function put(out, form, ...)
  out[#out + 1] = select("#", ...) > 0 and form:format(...) or form
end

local function plural(count, word)
  return ("%s %s%s"):format(number(count), word, count == 1 and "" or "s")
end

local function percent(share)
  return ("%.1f %%"):format(100 * share)
end

-- ---- Tables ----

-- A list of { name =, count =, share = } with bars.
local function ranking(out, title, list, about, empty)
  put(out, '<section><h3>%s<small>%s</small></h3>', title, about)
  if #list == 0 then
    put(out, '<p class="note">%s</p></section>', empty)
    return
  end
  put(out, '<table class="ranking">')
  for i = 1, math.min(#list, ROWS) do
    local one = list[i]
    put(out, '<tr><td class="name mono">%s</td><td class="bar"><i style="width:%.1f%%"></i></td>'
      .. '<td class="n count">%s</td><td class="n share">%s</td></tr>',
      escape(symbols.joined(one.name, one.line)), 100 * one.count / list[1].count,
      number(one.count), percent(one.share))
  end
  put(out, "</table>")
  if #list > ROWS then put(out, '<p class="note">and %s more</p>', number(#list - ROWS)) end
  put(out, "</section>")
end

local function tables(out, vm)
  local stats = vm.stats
  put(out, '<div class="pair">')
  ranking(out, "Exits by kind", stats.kinds, "all of them", "There was no exit.")
  ranking(out, "Exits by device", stats.devices, "all of them", "No device was asked.")
  put(out, '</div><div class="pair">')
  ranking(out, "Hottest places of devices", stats.places, "by samples of accesses",
    #stats.devices == 0 and "No device was asked."
      or "Not measured: the vCPUs ran on threads of their own.")
  ranking(out, "Hottest guest addresses", stats.profile, "by samples, 100 a second",
    "The guest ran too short a time for samples.")
  put(out, "</div>")
end

local function unknown(out, vm)
  if #vm.unknown == 0 then return end
  put(out, '<section><h3>Accesses that nobody took<small>all of them</small></h3><table><tr>'
    .. '<th>access</th><th>at last from</th><th class="n">times</th></tr>')
  for _, one in ipairs(vm.unknown) do
    put(out, '<tr><td class="name mono">%s</td><td class="name mono">%s</td>'
      .. '<td class="n">%s</td></tr>', escape(one.name), escape(one.rip), number(one.count))
  end
  put(out, "</table>")
  if vm.unknown_count > #vm.unknown then
    put(out, '<p class="note">and %s more</p>', number(vm.unknown_count - #vm.unknown))
  end
  put(out, "</section>")
end

-- ---- Time ----

local function timeline(out, vm)
  if not vm.timeline then return end
  local picture, layers = chart.svg(vm.timeline, vm.runs)
  if not picture then return end
  put(out, "<section><h3>Timeline<small>exits in a second; the strip below says when the VM was "
    .. "run</small></h3>")
  put(out, "%s", picture)
  put(out, '<ul class="legend">')
  for i, layer in ipairs(layers) do
    put(out, '<li><i class="c%d"></i>%s <span>%s</span></li>', i, escape(layer.name),
      number(math.floor(layer.sum + 0.5)))
  end
  put(out, "</ul></section>")
end

local function shares(out, vm)
  local time = vm.stats.time
  if not time or vm.entries < FEW then return end
  put(out, "<section><h3>Where the time went<small>by samples</small></h3>")
  local parts = { { "c3", "in the guest", time.guest }, { "c2", "in KVM", time.kvm },
    { "c1", "in Lua", time.lua } }
  put(out, '<div class="shares">')
  for _, part in ipairs(parts) do
    put(out, '<div class="%s" style="width:%.2f%%"></div>', part[1], 100 * part[3])
  end
  put(out, '</div><ul class="legend">')
  for _, part in ipairs(parts) do
    if part[1] ~= "c2" or part[3] > 0 then
      put(out, '<li><i class="%s"></i>%s <span>%s</span></li>', part[1], part[2], percent(part[3]))
    end
  end
  put(out, "</ul></section>")
end

-- ---- Text and screen ----

local function console(out, one)
  put(out, '<section><h3>Console<small>what was written to %s</small></h3>',
    escape(one.name))
  if one.lost > 0 then
    put(out, '<p class="note">The last %s; %s before that are left out.</p>',
      units.size(#one.text), units.size(one.lost))
  end
  put(out, '<div class="scroll"><pre class="console">%s</pre></div></section>',
    escape(markup.terminal(one.text)))
end

local function screen(out, vm)
  if not vm.screen then return end
  local text = vm.screen_text ~= "" and vm.screen_text or "graphics"
  put(out, '<section><h3>Screen<small>at the end</small></h3><img class="screen" alt="%s" '
    .. 'src="data:image/png;base64,%s"></section>', escape(text), base64(vm.screen))
end

-- ---- vCPUs ----

local function block(out, title, text)
  if not text or text == "" then return end
  put(out, "<h4>%s</h4><pre>%s</pre>", title, escape(text))
end

-- The instruction at rip stands out.
local function code(out, text, source)
  if not text then return end
  local lines = escape(text):gsub("=&gt; [^\n]*\n?", "<mark>%0</mark>")
  put(out, "<h4>Code%s</h4><pre>%s</pre>", source and (" in <code>%s</code>"):format(escape(source))
    or "", lines)
end

-- Zeros in front of a number are pale, so that the number is seen.
local function pale(text)
  return (escape(text):gsub("%f[%w](0+)(%x*)%f[%W]", function(zeros, rest)
    return #zeros + #rest >= 8 and ('<span class="z">%s</span>%s'):format(zeros, rest) or nil
  end))
end

-- Where a vCPU stands and why, under a title.
local function why(out, one, title)
  put(out, "<section><h3>%s</h3>", title)
  put(out, '<p class="mono">%s</p>', escape(one.sentence))
  if one.place then put(out, "<p>%s</p>", escape(one.place)) end
  if one.no_line then put(out, '<p class="note">%s</p>', escape(one.no_line)) end
  if one.problem then put(out, '<p class="note">%s</p>', escape(one.problem)) end
  for _, text in ipairs(one.mistakes or {}) do
    put(out, '<p class="likely"><b>Likely:</b> %s.</p>', escape(text))
  end
  if one.mode then put(out, '<p class="note">%s</p>', escape(one.mode)) end
  put(out, '<div class="two"><div>')
  code(out, one.code, one.source)
  put(out, "</div><div>")
  block(out, "Last exits", one.last and table.concat(one.last, "\n"))
  put(out, "</div></div>")
  block(out, one.again and "Exceptions of the instruction, done again on the software CPU"
    or "Last exceptions and interrupts", one.exceptions and table.concat(one.exceptions, "\n"))
  block(out, "Page walk", one.walk)
  block(out, "What each device was asked last", one.devices and table.concat(one.devices, "\n"))
  put(out, "</section>")
end

local function registers(out, one, title)
  if not one.registers then return end
  put(out, "<section><h3>%s<small>at the end%s</small></h3>", title,
    one.changes and "; with * what has changed since the guest was last entered" or "")
  if one.changes then put(out, '<p class="mono">%s</p>', escape(one.changes)) end
  put(out, "<pre>%s</pre>", pale(one.registers))
  put(out, "<pre>%s</pre></section>", pale(one.segments))
end

-- ---- The page ----

local function machine(out, vm)
  for _, problem in ipairs(vm.problems) do
    put(out, '<p class="note">Not to be seen: %s</p>', escape(problem))
  end
  if not vm.map then return end
  put(out, "<section><h3>Map<small>what is where, at the end</small></h3>")
  put(out, "%s", (vm.map:gsub("^<%?xml[^\n]*\n", "")))
  if vm.machine then
    put(out, "<details><summary>The machine as a text</summary><pre>%s</pre></details>",
      escape(vm.machine))
  end
  put(out, "</section>")
end

local function numbers(out, list)
  put(out, '<ul class="numbers">')
  for _, one in ipairs(list) do
    put(out, "<li><b>%s</b><span>%s</span></li>", escape(one[1]), escape(one[2]))
  end
  put(out, "</ul>")
end

local function vm_section(out, vm, title)
  local stats = vm.stats
  if title then
    put(out, "<h2>%s<small>%s on %s</small></h2>", escape(title), escape(vm.kind),
      escape(vm.accel))
  end
  local list = { { units.time(stats.seconds * 1e9), plural(stats.runs, "run") },
    { number(stats.exits), stats.exits == 1 and "exit" or "exits" } }
  if stats.exits >= FEW then
    list[3] = { units.short(stats.exits / stats.seconds), "exits a second, while it ran" }
  end
  list[#list + 1] = { number(vm.vcpu_count), vm.vcpu_count == 1 and "vCPU" or "vCPUs" }
  list[#list + 1] = { vm.accel, vm.reason }
  numbers(out, list)
  local alone = vm.vcpu_count == 1
  if vm.ended and not (alone and vm.ended == vm.vcpus[1].sentence) then
    put(out, '<section><h3>How the last run ended</h3><p class="mono">%s</p></section>',
      escape(vm.ended))
  end
  for _, one in ipairs(vm.vcpus) do
    why(out, one, alone and "Why it stopped" or ("Where vCPU %d stands"):format(one.id))
  end
  if vm.vcpu_count > #vm.vcpus then
    put(out, '<p class="note">and %s</p>', plural(vm.vcpu_count - #vm.vcpus, "further vCPU"))
  end
  for _, one in ipairs(vm.said) do console(out, one) end
  screen(out, vm)
  timeline(out, vm)
  shares(out, vm)
  tables(out, vm)
  unknown(out, vm)
  for _, one in ipairs(vm.vcpus) do
    registers(out, one, alone and "Registers" or ("Registers of vCPU %d"):format(one.id))
  end
  machine(out, vm)
end

local function head(out, facts)
  put(out, '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    .. '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
    .. "style-src 'unsafe-inline'; img-src data:\">\n"
    .. '<meta name="viewport" content="width=device-width">\n<title>%s</title>\n<style>%s</style>\n'
    .. "</head>\n<body>\n<main>\n<h1>%s</h1>", escape(facts.title), style, escape(facts.title))
  put(out, '<p class="about">%s, %s, in all %s</p>', escape(facts.version),
    os.date("%Y-%m-%d %H:%M:%S", facts.date), units.time(facts.seconds * 1e9))
  local outcome = facts.outcome
  if not outcome then return end
  put(out, '<div class="outcome %s">%s', outcome.status == 0 and "good" or "bad",
    escape(outcome.text))
  if outcome.detail then put(out, "<pre>%s</pre>", escape(outcome.detail)) end
  put(out, "</div>")
end

local function html(facts)
  local out = {}
  head(out, facts)
  for _, one in ipairs(facts.said) do console(out, one) end
  local gone = facts.made - #facts.vms
  if facts.made == 0 then put(out, '<p class="note">No VM was made.</p>') end
  if gone > 0 then
    put(out, '<p class="note">Of %s the last %d are here.</p>', plural(facts.made, "VM"),
      #facts.vms)
  end
  for i, vm in ipairs(facts.vms) do
    vm_section(out, vm, facts.made > 1 and ("VM %d"):format(gone + i))
  end
  put(out, "</main>\n</body>\n</html>\n")
  return table.concat(out, "\n")
end

--- The page: facts are title, date, seconds, version, vms (a list of what ending.lua gives, with
--- stats, entries, said, timeline and runs), made (how many VMs there were), said, and outcome.
function M.html(facts)
  return point.all(html, facts)
end

return M
