-- SPDX-License-Identifier: MIT
-- The client bootsectors: public boot sectors and small systems, as images of floppy disks that
-- SeaBIOS boots, in the directories of LUNA_BOOT_IMAGES. A test types, waits for texts on the
-- screen, and counts its colours; the same keys are pressed in QEMU, which has so many seconds
-- before and behind them. The machine is made in bootsectors_vm.lua.

local picture = require "picture"
local process = require "process"

local M = { about = "public boot sectors and small systems (LUNA_BOOT_IMAGES)" }

local BIOS, VGA = "usr/share/seabios/bios.bin", "usr/share/seabios/vgabios-stdvga.bin"
local BOOT, SETTLE = 4, 3 -- seconds that QEMU has
local KEYS = { [" "] = "spc", ["\n"] = "ret", ["*"] = "shift-8", ["/"] = "slash", ["-"] = "minus" }

-- `files`: what an image may be called, as patterns of the shell; `second`: what that of a disk in
-- the second drive. `wait` is a pattern that the
-- screen has before `type` is typed, `text` those that it has in the end; `colours`: how many its
-- picture comes to have at least, `width`: how wide it is in pixels, 320 in mode
-- 13h and 360 with 40 columns of text, which QEMU both shows with 640.
local TESTS = {
  { name = "bootBASIC", files = "basic.img", wait = ">", type = "10 print 6*7\nlist\nrun\n",
    text = { "\n>list\n10 print 6%*7\n", "\n42\n>" } },
  { name = "bootOS", files = "osall.img bootos*.img", wait = "bootOS\n%$", type = "dir\n",
    text = { "%$dir\n", "\nfbird\n", "\nbasic\n" } },
  { name = "pillman", files = "pillman.img", colours = 6, width = 320 },
  { name = "invaders", files = "invaders.img", colours = 12, width = 320 },
  { name = "fbird", files = "fbird.img fbird.com", text = { "F%-BIRD" }, colours = 4 },
  { name = "tetros", files = "tetros.img", colours = 2, width = 360 },
  { name = "rotozoomer", files = "[Rr]otozoomer.img", colours = 2, width = 320 },
  { name = "MikeOS", files = "mikeos.flp mikeos.img", wait = "Cancel for command line",
    type = "\n", text = { "Please select a file using the cursor", "FILEMAN%.BIN" } },
  { name = "FreeDOS", files = "freedos*1.4*.img freedos.img", wait = "A:\\>",
    type = "ver\ndir\n", text = { "FreeCom version", "KERNEL +SYS", "bytes free" } },
  { name = "FreeDOS-HIMEM", files = "freedos722.img", wait = "A:\\>", type = "ver\n",
    text = { "no hard disks detected\nFreeDOS HIMEM", "in HMA\n", "FreeCom version" } },
  { name = "Linux-0.11", files = "bootimage-0.11-fd", second = "rootimage-0.11",
    wait = "Insert root floppy", type = "\ncp /bin/sh /tmp\nls -l /tmp\n",
    text = { "free blocks", "\n%-rw%S+ +1 root +root +36864" } },
}

-- The first file of such a name in the directories; nil.
local function find(names)
  for root in (os.getenv "LUNA_BOOT_IMAGES" or ""):gmatch "[^:]+" do
    for pattern in names:gmatch "%S+" do
      local path = process.read_line(("ls -d %s/%s 2>/dev/null"):format(process.quote(root),
        pattern))
      if path then return path end
    end
  end
end

function M.missing()
  if not os.getenv "LUNA_BOOT_IMAGES" then
    return "LUNA_BOOT_IMAGES does not say in which directories the images are"
  end
  return process.missing { { BIOS, "seabios" }, { VGA, "seabios" } }
end

function M.tests()
  local list = {}
  for i, test in ipairs(TESTS) do
    local image, other = find(test.files), test.second and find(test.second)
    local missing = not image and test.files or test.second and not other and test.second
    list[i] = { image = image, other = other, skip = missing
      and ("there is no %s in LUNA_BOOT_IMAGES"):format(missing:gsub(" ", " or ")) or nil }
    for key, value in pairs(test) do list[i][key] = value end
  end
  return list
end

-- What a screen is worth: its texts and its picture, which is to be so wide.
local function judge(test, text, found, width, status, seconds)
  local checks = {}
  for i, check in ipairs(test.text or {}) do checks[i] = check end
  if test.colours then
    checks[#checks + 1] = "\npicture: as it should be"
    text = ("%s\npicture: %s, %d colours, %d pixels wide\n"):format(text,
      picture.fits(found, width, test.colours) and "as it should be"
      or "another", found.colours, found.width)
  end
  return process.judge(checks, text, status, seconds)
end

function M.ours(test, options)
  local shot, words = os.tmpname(), { arg[-1] or "luajit" }
  for _, word in ipairs { options.directory .. "/bootsectors_vm.lua", process.find(BIOS),
    process.find(VGA), test.image, options.accel, shot, options.seconds - 2, test.wait or "",
    test.type or "", test.colours or 0, test.width or 0, table.concat(test.text or {}, "\1"),
    test.other } do
    words[#words + 1] = process.quote(word)
  end
  local text, status, seconds = process.run(table.concat(words, " "), options.seconds)
  local found = picture.of_png(process.read(shot))
  os.remove(shot)
  return judge(test, text, found, test.width or 0, status, seconds)
end

-- The text that is in the memory of the screen: rows of 80 characters with their attributes.
local function text_of(memory)
  local rows = {}
  for at = 1, #memory - 159, 160 do
    local row = memory:sub(at, at + 159):gsub("(.).", "%1"):gsub("%z", " ")
    rows[#rows + 1] = row:gsub(" +$", "")
  end
  return table.concat(rows, "\n") .. "\n"
end

--- QEMU by its monitor: keys, the memory of the screen, and a picture of it.
function M.other(test)
  if not process.has_qemu() then return nil end
  local memory, shot = os.tmpname(), os.tmpname()
  local script = { ("sleep %d"):format(BOOT) }
  for character in (test.type or ""):gmatch "." do
    script[#script + 1] = ("echo sendkey %s; sleep 0.2"):format(KEYS[character] or character)
  end
  script[#script + 1] = ("sleep %d; echo pmemsave 0xb8000 4000 \\\"%s\\\"; echo screendump %s; "
    .. "sleep 1; echo quit"):format(SETTLE, memory, shot)
  local drives = {}
  for number, image in ipairs { test.image, test.other } do
    drives[number] = (" -drive file=%s,format=raw,if=floppy,index=%d,snapshot=on"):format(
      process.quote(image), number - 1)
  end
  local _, status, seconds = process.run(("bash -c %s"):format(process.quote(("{ %s; } | "
    .. "qemu-system-x86_64 -accel tcg -m 16 -nodefaults -vga std -display none -monitor stdio "
    .. "-boot a%s"):format(table.concat(script, "; "), table.concat(drives)))), 60)
  local text, found = text_of(process.read(memory)), picture.of_ppm(process.read(shot))
  os.remove(memory)
  os.remove(shot)
  return judge(test, text, found, test.width and 640 or 0, status, seconds)
end

return M
