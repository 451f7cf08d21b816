"""The half of the method that borrows detail from reference photographs."""
