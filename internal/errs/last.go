package errs

import "sync/atomic"

// Last is the error of what was done last, for those who ask later: nil when that succeeded, or nothing was done yet.
// The zero value is ready to use, by several goroutines.
type Last struct{ err atomic.Pointer[error] }

// Set replaces the error; nil is none.
func (l *Last) Set(err error) { l.err.Store(&err) }

// Get is the error that was set last.
func (l *Last) Get() error {
	if err := l.err.Load(); err != nil {
		return *err
	}
	return nil
}

// Text is the text of err, "" for nil. Faults are compared by it, so that the log has one that lasts only once.
func Text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
