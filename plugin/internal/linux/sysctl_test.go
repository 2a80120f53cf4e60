package linux

import (
	"os"
	"slices"
	"testing"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// What the system calls tell of limits is what the files say, each number in its
// place.
func TestInfosAreWhatProcSays(t *testing.T) {
	values := map[string]string{
		"kernel.msgmax": "8101", "kernel.msgmnb": "16102", "kernel.msgmni": "3103",
		"kernel.sem":    "3201\t102402\t503\t3204",
		"kernel.shmmax": "18446744073692774398", "kernel.shmall": "18446744073692774302", "kernel.shmmni": "4303",
	}
	err := fresh(t).Run(func(k kernel.Kernel) error {
		for name, text := range values {
			if err := os.WriteFile(sysctlPath(name), []byte(text), 0); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for name := range infos {
			got, err := k.Sysctl(name)
			file := readFields(t, name)
			want, wantErr := parseFields(values[name])
			if err != nil || wantErr != nil || !slices.Equal(got, want) || !slices.Equal(got, file) {
				t.Errorf("%s: %d, %v, the file says %d, want %d", name, got, err, file, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func readFields(t *testing.T, name string) []int64 {
	t.Helper()
	text, err := os.ReadFile(sysctlPath(name))
	if err != nil {
		t.Fatal(err)
	}
	values, err := parseFields(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return values
}
