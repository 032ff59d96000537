//go:build hostile

package hostile

// whole: every attack and every control.
const whole = true
