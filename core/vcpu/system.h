/* SPDX-License-Identifier: MIT
 * The layout of the system area: what the protected and 64-bit modes need in guest memory. */
#ifndef LUNA_SYSTEM_H
#define LUNA_SYSTEM_H

enum {
  LUNA_SYSTEM_GDT = 0x0000,
  LUNA_SYSTEM_STUBS = 0x0800, /* 256 of LUNA_STUB_SIZE */
  LUNA_SYSTEM_IDT = 0x1000,
  LUNA_SYSTEM_TSS = 0x2000, /* with the I/O bitmap: two pages and a bit */
  LUNA_SYSTEM_STACK_TOP = 0x6000,
  LUNA_SYSTEM_PML4 = 0x6000,
  LUNA_SYSTEM_PDPT = 0x7000,
  LUNA_SYSTEM_PD = 0x8000, /* four, one a GiB */
  LUNA_SYSTEM_PT = 0xc000  /* of the 2 MiB around the system area */
};

enum {
  LUNA_SELECTOR_CODE64 = 0x08,
  LUNA_SELECTOR_DATA = 0x10,
  LUNA_SELECTOR_USER_DATA = 0x1b, /* before the code, as SYSRET wants it */
  LUNA_SELECTOR_USER_CODE64 = 0x23,
  LUNA_SELECTOR_TSS = 0x28,
  LUNA_SELECTOR_CODE32 = 0x38,
  LUNA_GDT_LIMIT = 0x3f
};

enum {
  LUNA_TSS_SIZE = 0x68,
  LUNA_TSS_LIMIT = LUNA_TSS_SIZE + 0x2000, /* the bitmap ends in one byte of ones */
  LUNA_STUB_SIZE = 8,
  /* The port of the stubs. A device may own it all the same: only an OUT at a stub's address is
   * one. */
  LUNA_EXCEPTION_PORT = 0xf4
};

#endif
