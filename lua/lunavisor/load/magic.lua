-- SPDX-License-Identifier: MIT
-- The bytes by which images of some formats are known; where they are, the loaders say.

return {
  LINUX = "HdrS",
  MULTIBOOT = "\2\xb0\xad\27",
  MULTIBOOT2 = "\xd6\x50\x52\xe8",
  ELF = "\127ELF",
}
