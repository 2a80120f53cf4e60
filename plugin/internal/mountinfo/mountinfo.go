// Package mountinfo knows how paths are written in proc_pid_mountinfo(5).
package mountinfo

import "strings"

// mangled undoes mangle_path of fs/seq_file.c, for the characters that
// show_mountinfo of fs/proc_namespace.c has escaped in paths.
var mangled = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// Unescape returns the path that a field stands for, a mount's root or its mount
// point: blanks, tabs, newlines and backslashes are written there in octal. Any
// other backslash is left as it is.
func Unescape(field string) string { return mangled.Replace(field) }
