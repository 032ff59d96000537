//go:build broken

package pool

const latchOff = true
