package link_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"paddock/pool/link"
	"paddock/pool/link/linktest"
)

func BenchmarkDo(b *testing.B) {
	for _, callers := range []int{1, 8, 32} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) { benchmarkDo(b, callers, 25) })
	}
}

// BenchmarkDo32 is the bar: more than 100,000 calls a second against a peer in the same process.
func BenchmarkDo32(b *testing.B) { benchmarkDo(b, 32, 25) }

func benchmarkDo(b *testing.B, callers, size int) {
	c, _ := pair(b, link.Options{}, linktest.Options{Inline: true})
	body := make([]byte, size)
	for i := range body {
		body[i] = '1'
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			r := request(string(body))
			for left.Add(-1) >= 0 {
				r.Deadline = time.Now().Add(10 * time.Second)
				if _, err := c.Do(context.Background(), r, nil, nil); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

func BenchmarkBigBody(b *testing.B) {
	c, _ := pair(b, link.Options{}, linktest.Options{})
	r := request(string(make([]byte, 6<<20)))
	b.SetBytes(2 * 6 << 20)
	for b.Loop() {
		r.Deadline = time.Now().Add(10 * time.Second)
		if _, err := c.Do(context.Background(), r, nil, nil); err != nil {
			b.Fatal(err)
		}
	}
}
