// Package backup writes all that a service must not lose into one file, and puts it back where there is nothing: the records of the
// catalogue at one revision, the code that they refer to, and the files of keys. What a process said of itself (registered
// controllers, what they had bound, elections) is left out: it belongs to a life that is over. It knows neither where
// a service keeps these things nor how to reach its store.
package backup
