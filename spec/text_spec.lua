-- SPDX-License-Identifier: MIT
-- Texts for pages: escaped for HTML and SVG, numbers with their units, bytes as base64.

local base64 = require "lunavisor.text.base64"
local markup = require "lunavisor.text.markup"
local units = require "lunavisor.text.units"

describe("text for HTML", function()
  it("has no markup", function()
    assert.equal("a &lt;b&gt; &amp; &quot;c&quot; 'd'\n\te",
      markup.escape "a <b> & \"c\" 'd'\n\te")
    assert.equal("17", markup.escape(17))
  end)

  it("has control characters as pictures", function()
    assert.equal("\226\144\128\226\144\155\226\144\161\226\144\141", markup.escape "\0\27\127\r")
  end)

  it("keeps what is UTF-8", function()
    for _, text in ipairs { "\194\160\223\191", "\224\160\128\226\130\172\237\159\191\239\191\191",
      "\240\144\128\128\240\159\152\128\244\143\191\191" } do
      assert.equal(text, markup.escape(text))
    end
  end)

  it("has other bytes as numbers", function()
    assert.equal("\\x80\\xff", markup.escape "\128\255")
    assert.equal("\\xc0\\xbc", markup.escape "\192\188")            -- "<", too long
    assert.equal("\\xe0\\x80\\xbc", markup.escape "\224\128\188")
    assert.equal("\\xed\\xa0\\x80", markup.escape "\237\160\128")   -- a surrogate
    assert.equal("\\xf4\\x90\\x80\\x80", markup.escape "\244\144\128\128")
    assert.equal("\\xc2\\x85", markup.escape "\194\133")            -- a control character
    assert.equal("\\xe2\\x82<", (markup.escape "\226\130<":gsub("&lt;", "<")))
    assert.equal("\226\130\172\\xe2", markup.escape "\226\130\172\226")
  end)

  it("is what a terminal shows", function()
    assert.equal("red and bold", markup.terminal "\27[31mred\27[0m and \27[1;37;40mbold\27(B\27[m")
    assert.equal("a\nb\nc", markup.terminal "a\r\nb\rc")
    assert.equal("\none\ntwo", markup.terminal "\27[2J\27[1;1Hone\27[02;05Htwo\27[?25h\27[K")
    assert.equal("end", markup.terminal "\27]0;title\7end")
  end)
end)

describe("a number with its unit", function()
  it("is grouped by threes", function()
    for value, text in pairs { [0] = "0", [999] = "999", [1000] = "1,000", [44191] = "44,191",
      [1234567] = "1,234,567", [-123456] = "-123,456" } do
      assert.equal(text, units.number(value))
    end
  end)

  it("is a time", function()
    for value, text in pairs { [0] = "0 s", [7] = "7 ns", [999.9] = "1 \194\181s",
      [12345] = "12.3 \194\181s", [2e6] = "2 ms", [1.5e9] = "1.5 s", [99.9e9] = "99.9 s",
      [119.7e9] = "2 min 0 s", [185e9] = "3 min 5 s" } do
      assert.equal(text, units.time(value))
    end
  end)

  it("is short", function()
    for value, text in pairs { [0] = "0", [12] = "12", [999.9] = "1 k", [3400] = "3.4 k",
      [1250000] = "1.25 M", [2e9] = "2 G", [5e12] = "5000 G" } do
      assert.equal(text, units.short(value))
    end
  end)

  it("is a size", function()
    for value, text in pairs { [1] = "1 byte", [512] = "512 bytes", [65536] = "64 KiB",
      [1572864] = "1.5 MiB", [2 ^ 31] = "2 GiB" } do
      assert.equal(text, units.size(value))
    end
  end)
end)

describe("base64", function()
  it("is that of RFC 4648, 10", function()
    for bytes, text in pairs { [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foob = "Zm9vYg==",
      fooba = "Zm9vYmE=", foobar = "Zm9vYmFy", ["\255\254\253\0"] = "//79AA==" } do
      assert.equal(text, base64(bytes))
    end
  end)
end)
