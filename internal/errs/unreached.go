package errs

import "errors"

// unreached marks an error that arose on the way to another process.
type unreached struct{ error }

func (u unreached) Unwrap() error { return u.error }

// Unreached marks err as one that arose on the way to another process. That process has not judged the request, so any
// other request to it would fail alike now. The kind stays; nil stays nil.
func Unreached(err error) error {
	if err == nil {
		return nil
	}
	return unreached{err}
}

// IsUnreached reports whether err, or one that it wraps, was marked by Unreached.
func IsUnreached(err error) bool { return errors.As(err, new(unreached)) }
