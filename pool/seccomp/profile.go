// Package seccomp is the system-call allow-list of Paddock's containers, as neutral data with a JSON form for Docker; the
// engine that writes runtime-spec bundles converts the same data. It is deny by default, written out by name, and the same
// for every runtime image. It loads no filter: container runtimes do.
package seccomp

import (
	"encoding/json"
	"fmt"
	"slices"
	"syscall"
)

// Variant says which container runtime will load the profile.
type Variant uint8

// The variants. They differ in clone3 only. Its flags lie in memory where a filter cannot read them, so Runc answers
// ENOSYS, on which C libraries fall back to clone, whose namespace flags can be filtered. gVisor's filter knows no errno
// but EPERM, on which C libraries give up, so there clone3 is allowed: it reaches the sandbox's own kernel only.
const (
	Runc Variant = iota
	GVisor
)

// Action of a rule, in the words of the OCI runtime-spec and of Docker.
type Action string

// The actions.
const (
	Allow Action = "SCMP_ACT_ALLOW"
	Errno Action = "SCMP_ACT_ERRNO"
)

// Op compares an argument, in the same words.
type Op string

// The comparisons. MaskedEqual: argument & Value == ValueTwo.
const (
	Equal       Op = "SCMP_CMP_EQ"
	NotEqual    Op = "SCMP_CMP_NE"
	MaskedEqual Op = "SCMP_CMP_MASKED_EQ"
)

// Arg is a condition on one argument.
type Arg struct {
	Index    uint
	Value    uint64
	ValueTwo uint64
	Op       Op
}

// Rule is what happens on any of its calls when all its conditions hold.
type Rule struct {
	Names  []string
	Action Action
	Errno  uint // of Errno rules
	Args   []Arg
}

// Profile is a whole filter. What no rule names gets DefaultErrno.
type Profile struct {
	DefaultErrno  uint
	Architectures []string // "SCMP_ARCH_X86_64"
	Rules         []Rule
}

// namespaceFlags are the clone flags that make namespaces (CLONE_NEWTIME is no clone flag).
const namespaceFlags = syscall.CLONE_NEWNS | syscall.CLONE_NEWCGROUP | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC |
	syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET

// For returns the profile for a runtime on an architecture (as in runtime.GOARCH: amd64 or arm64).
func For(v Variant, goarch string) (Profile, error) {
	arch, ok := map[string]string{"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}[goarch]
	if !ok {
		return Profile{}, fmt.Errorf("no seccomp profile for architecture %s", goarch)
	}
	rules := []Rule{
		{Names: slices.Clone(allowed), Action: Allow},
		{Names: []string{"socket", "socketpair"}, Action: Allow, Args: []Arg{{Index: 0, Value: syscall.AF_UNIX, Op: Equal}}},
		{Names: []string{"madvise"}, Action: Allow, Args: []Arg{{Index: 2, Value: syscall.MADV_MERGEABLE, Op: NotEqual}}},
		{Names: []string{"clone"}, Action: Allow, Args: []Arg{{Index: 0, Value: namespaceFlags, Op: MaskedEqual}}},
	}
	clone3 := Rule{Names: []string{"clone3"}, Action: Errno, Errno: uint(syscall.ENOSYS)}
	if v == GVisor {
		clone3 = Rule{Names: []string{"clone3"}, Action: Allow}
	}
	return Profile{DefaultErrno: uint(syscall.EPERM), Architectures: []string{arch}, Rules: append(rules, clone3)}, nil
}

// Docker's JSON form, also that of the Engine API's security option "seccomp=…".
type dockerProfile struct {
	DefaultAction Action          `json:"defaultAction"`
	Architectures []string        `json:"architectures"`
	Syscalls      []dockerSyscall `json:"syscalls"`
}

type dockerSyscall struct {
	Names    []string    `json:"names"`
	Action   Action      `json:"action"`
	ErrnoRet *uint       `json:"errnoRet,omitempty"`
	Args     []dockerArg `json:"args"`
}

type dockerArg struct {
	Index    uint   `json:"index"`
	Value    uint64 `json:"value"`
	ValueTwo uint64 `json:"valueTwo"`
	Op       Op     `json:"op"`
}

// DockerJSON returns the profile as Docker reads it. Docker's default errno is EPERM, which is ours.
func (p Profile) DockerJSON() ([]byte, error) {
	if p.DefaultErrno != uint(syscall.EPERM) {
		return nil, fmt.Errorf("docker profiles deny with EPERM, not errno %d", p.DefaultErrno)
	}
	d := dockerProfile{DefaultAction: Errno, Architectures: p.Architectures}
	for _, r := range p.Rules {
		s := dockerSyscall{Names: r.Names, Action: r.Action, Args: []dockerArg{}}
		if r.Action == Errno {
			s.ErrnoRet = &r.Errno
		}
		for _, a := range r.Args {
			s.Args = append(s.Args, dockerArg(a))
		}
		d.Syscalls = append(d.Syscalls, s)
	}
	return json.Marshal(d)
}
