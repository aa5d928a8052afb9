# SPDX-License-Identifier: MIT
# Makes the calls of native.c from the preprocessed headers: each takes its arguments as words.
BEGIN { RS = ";" }
match($0, /hv_return_t[ \n]+hv_[a-z0-9_]+\(/) {
  name = substr($0, RSTART + 11, RLENGTH - 12)
  gsub(/[ \n]/, "", name)
  list = substr($0, RSTART + RLENGTH)
  gsub(/\n *| *\)$/, " ", list)
  count = split(list, parameters, ",")
  printf "static hv_return_t do_%s(const uintptr_t *a) {\n  (void)a;\n  return %s(", name, name
  for (i = 1; i <= count && parameters[1] !~ /^ *void *$/; i++) {
    type = parameters[i]
    star = sub(/\[\] *$/, "", type) ? " *" : ""
    sub(/[a-z0-9_]+ *$/, "", type)
    printf "%s(%s%s)a[%d]", (i == 1 ? "" : ", "), type, star, i - 1
  }
  print ");\n}"
  table = table "    {\"" name "\", do_" name "},\n"
}
END { printf "static const entry entries[] = {\n%s};\n", table }
