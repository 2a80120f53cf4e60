package e2e_test

import "testing"

// TestCrun and TestCrunFront are what the other runtimes are tested with, for
// crun, which does not run on every machine's cgroup mounts.
func TestCrun(t *testing.T) {
	each(t, []way{byCrun}, func(t *testing.T, w way) { carried(t, w, plain) })
}

func TestCrunFront(t *testing.T) {
	for _, f := range allFronts {
		t.Run(f.name, func(t *testing.T) {
			each(t, []way{byCrun}, func(t *testing.T, w way) {
				for conf, s := range map[string]shape{scriptConf(t): manyPlain, hookConf(t): manyMore} {
					t.Run(s.name, func(t *testing.T) { carriedThrough(t, f, w, conf, s) })
				}
			})
		})
	}
}

func TestCrunFrontFrozen(t *testing.T) {
	for _, f := range allFronts {
		t.Run(f.name, func(t *testing.T) {
			each(t, []way{byCrun}, func(t *testing.T, w way) { frozenThrough(t, f, w) })
		})
	}
}
