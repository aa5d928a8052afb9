/* SPDX-License-Identifier: MIT
 * The breakpoints of a vCPU: setting them and taking them away. */
#include "debug/breakpoint.h"

#include "base/error.h"
#include "debug/debug.h"
#include "debug/software.h"
#include "vcpu/guard.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int luna_debug_open(luna_vcpu *vcpu) {
  if (vcpu->debug) {
    return LUNA_OK;
  }
  luna_debug *debug = calloc(1, sizeof *debug);
  if (!debug) {
    return luna_fail_errno(ENOMEM, "cannot debug vCPU %u", vcpu->id);
  }
  vcpu->debug = debug;
  if (vcpu->exits == 0 && luna_debug_locate(vcpu, &debug->stood) == LUNA_OK) {
    debug->standing = true;
  }
  return LUNA_OK;
}

void luna_debug_attend(luna_vcpu *vcpu) {
  atomic_fetch_or(&vcpu->attention, LUNA_ATTEND_DEBUG);
}

int luna_debug_check_shape(int kind, uint64_t gva, uint32_t size) {
  if (kind < LUNA_BREAK_EXECUTE || kind > LUNA_BREAK_SOFTWARE) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "there is no kind %d of breakpoint", kind);
  }
  bool data = kind == LUNA_BREAK_WRITE || kind == LUNA_BREAK_ACCESS;
  if (size > 1 && !data) {
    return luna_fail(LUNA_ERROR_RANGE,
                     "cannot set a breakpoint of %u bytes at gva 0x%" PRIx64
                     ": one on an instruction has the size 1",
                     size, gva);
  }
  if ((size != 1 && size != 2 && size != 4 && size != 8) || gva % size != 0) {
    return luna_fail(LUNA_ERROR_RANGE,
                     "cannot watch %u bytes at gva 0x%" PRIx64
                     ": the processor watches 1, 2, 4 or 8 bytes at a multiple of their number",
                     size, gva);
  }
  return LUNA_OK;
}

/* Room for one more software breakpoint and its patch. */
static int grow(luna_debug *debug) {
  if (debug->software_count < debug->software_room) {
    return LUNA_OK;
  }
  uint32_t room = debug->software_room ? 2 * debug->software_room : 8;
  luna_breakpoint **software = realloc(debug->software, room * sizeof *software);
  if (software) {
    debug->software = software;
  }
  luna_patch **patches = realloc(debug->patches, room * sizeof *patches);
  if (patches) {
    debug->patches = patches;
  }
  if (!software || !patches) {
    return luna_fail_errno(ENOMEM, "cannot set a software breakpoint");
  }
  debug->software_room = room;
  return LUNA_OK;
}

/* Where the new breakpoint goes, if it takes a debug register; else there is room for it. */
static int take_place(luna_vcpu *vcpu, int kind, luna_breakpoint ***place) {
  luna_debug *debug = vcpu->debug;
  if (kind == LUNA_BREAK_SOFTWARE) {
    return grow(debug);
  }
  for (int i = 0; i < LUNA_DEBUG_REGISTERS; i++) {
    if (!debug->points[i]) {
      *place = &debug->points[i];
      return LUNA_OK;
    }
  }
  return luna_fail(LUNA_ERROR_LIMIT,
                   "cannot set another hardware breakpoint on vCPU %u: the processor has %d, and "
                   "all are taken; close one or use a software breakpoint",
                   vcpu->id, LUNA_DEBUG_REGISTERS);
}

int luna_debug_add(luna_vcpu *vcpu, int kind, uint64_t gva, uint32_t size, uint32_t *breakpoint) {
  luna_breakpoint **place = NULL;
  int status = luna_debug_open(vcpu);
  status = status == LUNA_OK ? take_place(vcpu, kind, &place) : status;
  if (status != LUNA_OK) {
    return status;
  }
  luna_breakpoint *made = malloc(sizeof *made);
  if (!made) {
    return luna_fail_errno(ENOMEM, "cannot set a breakpoint on vCPU %u", vcpu->id);
  }
  luna_debug *debug = vcpu->debug;
  *made = (luna_breakpoint){
      .gva = gva, .number = ++debug->last_number, .kind = (uint32_t)kind, .size = size};
  if (kind == LUNA_BREAK_SOFTWARE) {
    luna_software_add(debug, made);
  } else {
    *place = made;
  }
  *breakpoint = made->number;
  luna_debug_attend(vcpu);
  return LUNA_OK;
}

int luna_vcpu_unbreak(luna_vcpu *vcpu, uint32_t breakpoint) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  luna_debug *debug = vcpu->debug;
  for (int i = 0; debug && i < LUNA_DEBUG_REGISTERS; i++) {
    if (debug->points[i] && debug->points[i]->number == breakpoint) {
      free(debug->points[i]);
      debug->points[i] = NULL;
      return LUNA_OK;
    }
  }
  for (uint32_t i = 0; debug && i < debug->software_count; i++) {
    if (debug->software[i]->number == breakpoint) {
      free(debug->software[i]);
      debug->software_count--;
      memmove(debug->software + i, debug->software + i + 1,
              (debug->software_count - i) * sizeof(luna_breakpoint *));
      return LUNA_OK;
    }
  }
  return luna_fail(LUNA_ERROR_NOT_FOUND, "vCPU %u has no breakpoint %u", vcpu->id, breakpoint);
}

bool luna_debug_breaks_before(const luna_debug *debug, uint64_t gva) {
  for (int i = 0; i < LUNA_DEBUG_REGISTERS; i++) {
    const luna_breakpoint *point = debug->points[i];
    if (point && point->kind == LUNA_BREAK_EXECUTE && point->gva == gva) {
      return true;
    }
  }
  return luna_software_at(debug, gva) != NULL;
}

void luna_debug_end(luna_vcpu *vcpu) {
  luna_debug *debug = vcpu->debug;
  if (!debug) {
    return;
  }
  for (int i = 0; i < LUNA_DEBUG_REGISTERS; i++) {
    free(debug->points[i]);
  }
  for (uint32_t i = 0; i < debug->software_count; i++) {
    free(debug->software[i]);
  }
  free(debug->software);
  free(debug->patches);
  free(debug);
  vcpu->debug = NULL;
}
