package state

import (
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }
