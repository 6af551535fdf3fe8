; A byte whose square is 49.
(set-option :produce-models true)
(set-logic QF_BV)
(declare-const x (_ BitVec 8))
(assert (= (bvmul x x) #x31))
(assert (bvult x #x10))
(check-sat)
(get-value (x))
