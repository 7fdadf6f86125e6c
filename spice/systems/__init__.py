"The systems of the other papers."
