//go:build !hostile

package hostile

// whole: without the build tag only what stands for each group is tried, so that it fits among the other tests.
const whole = false
