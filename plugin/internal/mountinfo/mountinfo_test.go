package mountinfo

import "testing"

func TestUnescape(t *testing.T) {
	for field, want := range map[string]string{
		`/`:                         "/",
		`/a\040b\011c\012d\134e`:    "/a b\tc\nd\\e",
		`/\134040`:                  `/\040`, // a backslash and three digits, not a blank
		`/\043`:                     `/\043`, // which mountinfo does not escape
		`/cut\04`:                   `/cut\04`,
		`/sys/fs/cgroup/\040\040/x`: "/sys/fs/cgroup/  /x",
	} {
		if got := Unescape(field); got != want {
			t.Errorf("%q: %q, want %q", field, got, want)
		}
	}
}
