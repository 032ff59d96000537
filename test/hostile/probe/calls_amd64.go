package main

import "golang.org/x/sys/unix"

// ofTheMachine are the calls that only this machine has.
func ofTheMachine() []call {
	return []call{{"iopl", unix.SYS_IOPL, [6]uintptr{3}}, {"ioperm", unix.SYS_IOPERM, [6]uintptr{0, 1, 1}}, {"modify_ldt", unix.SYS_MODIFY_LDT, [6]uintptr{99}},
		{"uselib", unix.SYS_USELIB, [6]uintptr{}}, {"_sysctl", unix.SYS__SYSCTL, [6]uintptr{}}, {"ustat", unix.SYS_USTAT, [6]uintptr{}},
		{"sysfs", unix.SYS_SYSFS, [6]uintptr{99}}, {"create_module", unix.SYS_CREATE_MODULE, [6]uintptr{}}}
}

// int80 makes a call of the 32-bit table, which has other numbers.
func int80(nr uint32) int32
