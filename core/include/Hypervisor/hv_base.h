/* SPDX-License-Identifier: MIT
 * What the other headers are written with. Constants are enumerators, which debuggers and binding
 * generators see; those that an int cannot hold need HV_WIDE in front of their enum. */
#ifndef HYPERVISOR_HV_BASE_H
#define HYPERVISOR_HV_BASE_H

/* With HV_CDEF, what is left is for ffi.cdef of LuaJIT. */
#ifndef HV_CDEF
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#define HV_API __attribute__((visibility("default")))
#define HV_WIDE __extension__
#else
#define HV_API
#define HV_WIDE
#endif
#ifdef __cplusplus
#define HV_BEGIN extern "C" {
#define HV_END }
#else
#define HV_BEGIN
#define HV_END
#endif

#endif
