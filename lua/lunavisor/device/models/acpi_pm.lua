-- SPDX-License-Identifier: MIT
-- The fixed hardware of ACPI: events, control and the timer (main, 16 bytes as in a PIIX4), the SMI
-- command port that turns ACPI on (command), and the reset register (reset). Sections are of the
-- ACPI specification 6.4. Option off: the sleep type that is S5.

local device = require "lunavisor.device"
local ticks = require "lunavisor.device.models.ticks"
local word = require "lunavisor.device.word"

local HERTZ = 3579545 -- 4.8.3.3
local HALF = 2 ^ 23   -- ticks from one change of the timer's highest bit to the next

local function count(d) return ticks.count(d, HERTZ) end

-- 4.8.3.1.1: TMR_STS is set when the highest bit changes.
local function catch_up(d)
  local halves = math.floor(count(d) / HALF)
  if halves > d.halves then
    d.halves = halves
    d.PM1_STS.timer = 1
  end
  if d.PM1_EN.timer == 1 then
    ticks.at(d, HERTZ, (halves + 1) * HALF, "overflow")
  else
    d:cancel "overflow"
  end
end

local function arrived(d, status)
  d.PM1_STS[status] = 1
  d:update()
end

return device "acpi_pm" {
  options = { off = 0, enable = 0xf1, disable = 0xf0 },
  unknown = "zeros",
  regions = {
    main = { size = 16, width = 2, registers = {
      PM1_STS = { at = 0, access = "w1c", read = function(d)
        catch_up(d)
        return d.PM1_STS.value
      end, write = catch_up, fields = { -- table 4.12
        timer = 0, bus_master = 4, global = 5, power = 8, sleep = 9, rtc = 10, wake = 15 } },
      PM1_EN = { at = 2, write = catch_up, fields = { timer = 0, global = 5, power = 8, sleep = 9,
        rtc = 10 } },
      PM1_CNT = { at = 4, fields = { sci = { 0, "ro" }, bus_master = 1, release = { 2, "wo" },
        sleep_type = "12:10", sleep = { 13, "wo", write = function(d, on) -- table 4.13
          d.PM1_CNT.sleep = 0
          if on == 0 then return end
          if d.PM1_CNT.sleep_type == d.options.off then
            d.off:set(true)
          else
            d:log(("sleep type %d: not modelled (4.8.3.2)"):format(d.PM1_CNT.sleep_type))
          end
        end } } },
      PM_TMR = { at = 8, width = 4, access = "ro", read = function(d)
        return count(d) % (2 * HALF)
      end },
    } },
    command = { size = 2, width = 1, registers = {
      SMI_CMD = { at = 0, write = function(d, value) -- 4.8.2.1
        if value == d.options.enable then d.PM1_CNT.sci = 1 end
        if value == d.options.disable then d.PM1_CNT.sci = 0 end
      end },
      SMI_STS = { at = 1 },
    } },
    reset = { size = 1, width = 1, registers = { -- 4.8.3.6; the bits are those of the port 0xcf9
      RESET = { at = 0, fields = { full = 1, cpu = { 2, write = function(d, new, old)
        if new > old then d.reset_out:pulse() end
      end } } },
    } },
  },
  state = { passed = 0, halves = 0 },
  lines = {
    sci = function(d)
      return d.PM1_CNT.sci == 1 and word.band(d.PM1_STS.value, d.PM1_EN.value) > 0
    end,
    off = true, reset_out = true,
  },
  timers = { epoch = ticks.epoch, overflow = catch_up },
  init = ticks.start,
  reset = ticks.start,
  methods = {
    --- The power button, and the sleep button, is pressed.
    press_power = function(d) arrived(d, "power") end,
    press_sleep = function(d) arrived(d, "sleep") end,
  },
}
