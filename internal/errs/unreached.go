package errs

import "errors"

// unreached marks an error of the way to another process.
type unreached struct{ error }

func (u unreached) Unwrap() error { return u.error }

// Unreached marks err as one of the way to another process: nothing there has judged what was asked, so anything else
// that is asked of it now would fail alike. The kind stays; nil stays nil.
func Unreached(err error) error {
	if err == nil {
		return nil
	}
	return unreached{err}
}

// IsUnreached reports whether err, or one that it wraps, was marked by Unreached.
func IsUnreached(err error) bool { return errors.As(err, new(unreached)) }
