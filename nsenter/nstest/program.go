package nstest

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// programEnv names the program that a test binary is to be.
const programEnv = "IPC_CR_NSTEST_PROGRAM"

// leashFD is a pipe whose other end is the test's: however the test ends, the
// programs that it started end too.
const leashFD = 3

var programs = map[string]func(args []string){waitProgram: waitForEnd}

// Program registers fn as what Start runs under this name: a function of the
// test binary as a process of its own, with stdin and stdout piped to the test.
// It is called before Main, from a variable's initialiser or TestMain, and
// returns the name. The process exits with 0 when fn returns.
func Program(name string, fn func(args []string)) string {
	if _, taken := programs[name]; taken {
		panic(fmt.Sprintf("nstest: a program %q is registered already", name))
	}
	programs[name] = fn
	return name
}

func runProgram(name string) (status int) {
	fn, ok := programs[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "nstest: no program %q is registered\n", name)
		return 2
	}
	os.Unsetenv(programEnv) // what the program starts is not that program
	go endWithTest()
	fn(os.Args[1:])
	return 0
}

func endWithTest() {
	unix.CloseOnExec(leashFD)
	leash := os.NewFile(leashFD, "leash")
	leash.Read(make([]byte, 1))
	os.Exit(3)
}

// waitProgram does nothing until its stdin is closed.
const waitProgram = "nstest.wait"

func waitForEnd([]string) { os.Stdin.Read(make([]byte, 1)) }
